//go:build !linux

package machine

import (
	"time"

	"github.com/decant-project/decant"
)

func kernel() string            { return "" }
func memoryTotal() decant.Bytes { return 0 }
func memoryFree() decant.Bytes  { return 0 }
func load() float64             { return 0 }
func uptime() time.Duration     { return 0 }
