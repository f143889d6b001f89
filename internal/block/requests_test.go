package block_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/testenv"
)

// TestRequests: what Remora asks of the cloud is what it cannot do without, and a tenth of that more at
// the most, however large the account is. A plugin that lists the account asks for at least twice as
// much where the account is one page, and for five times as much where it is more.
func TestRequests(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	for _, n := range []int{10, 1000, 10000} {
		if testing.Short() && n > 1000 {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			rounds := 20
			if n > 5000 { // which take long to make
				rounds = 3
			}
			figures := blocktest.Requests(t, blocktest.Config{Size: 16 << 20, New: func(t testing.TB) blocktest.Cloud {
				c := blocktest.NewReference(t)
				c.Page = 500
				return c
			}}, n, rounds)
			var remora, least, listing float64
			for _, f := range figures {
				if f.Remora > f.Least+1/float64(rounds) && f.Remora > 1.1*f.Least {
					t.Errorf("%s: %.1f requests, and it can be done with %.0f", f.What, f.Remora, f.Least)
				}
				remora, least, listing = remora+f.Remora, least+f.Least, listing+f.Listing
			}
			t.Logf("%d volumes: in all Remora %.1f, least %.0f, listing %.1f: %.1f times", n, remora, least, listing, listing/remora)
			if remora > 1.1*least {
				t.Errorf("%.1f requests, and it can be done with %.0f", remora, least)
			}
			want := 2.0 // a page is the account
			if n > 500 {
				want = 5
			}
			if listing < want*remora {
				t.Errorf("listing the account comes to %.1f requests, which is not %.0f times %.1f", listing, want, remora)
			}
		})
	}
}

// BenchmarkMount measures what a mount takes beyond what the cloud takes.
func BenchmarkMount(b *testing.B) {
	testenv.Require(b, testenv.Loop)
	const delay = 300 * time.Millisecond
	blocktest.Mounts(b, blocktest.Config{New: func(t testing.TB) blocktest.Cloud {
		c := blocktest.NewReference(t)
		c.Delay = delay
		return c
	}}, delay)
}
