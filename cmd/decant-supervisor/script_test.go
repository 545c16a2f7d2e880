package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/decant-project/decant/cmd/internal/scripttest"
	"github.com/decant-project/decant/internal/wasm"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == wasm.CompilerCommand { // by whatever name it was started
		main()
	}
	testscript.Main(m, map[string]func(){"decant-supervisor": main})
}

// TestScript runs the sessions of testdata.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Cmds:                scripttest.Commands(),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			scripttest.Env(env)
			return nil
		},
	})
}
