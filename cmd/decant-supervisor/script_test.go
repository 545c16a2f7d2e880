package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/decant-project/decant/cmd/internal/scripttest"
)

func TestMain(m *testing.M) {
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
