package mem_test

import (
	"testing"

	"github.com/decant-project/decant/internal/state"
	"github.com/decant-project/decant/internal/state/mem"
	"github.com/decant-project/decant/internal/state/statetest"
)

func TestConformance(t *testing.T) {
	statetest.Run(t, func(testing.TB) state.Store { return mem.New() })
}
