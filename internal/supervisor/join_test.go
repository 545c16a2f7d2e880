package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/decant-project/decant/internal/identity"
)

// TestOffersOverTheNetwork: anybody can offer a device a join code. One that
// leads nowhere is given up, and keeps no other from being tried.
func TestOffersOverTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		bogus := identity.NewCode(identity.Pin{1}).String()
		for range 10 {
			if err := d.Offer(bogus, nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if err := d.Offer(bogus, nil); err != nil { // the one it comes to next
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(offerPatience + time.Second)
			synctest.Wait()
		}
		if len(d.offers) != 0 {
			t.Error("an offer still waits for its turn")
		}
	})
}
