package transport_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/decant-project/decant/internal/transport"
	"github.com/decant-project/decant/internal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLocal(t *testing.T) {
	transporttest.Run(t, func(testing.TB) transporttest.Net {
		var local transport.Local
		var next atomic.Int64
		return transporttest.Net{
			Caller: &local,
			Serve: func(_ testing.TB, device string, h transport.Handler) (string, func()) {
				addr := fmt.Sprintf("place-%d", next.Add(1))
				return addr, local.Serve(addr, device, h)
			},
		}
	})
}
