package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

func TestFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlight()
		begin := time.Now()
		f.add(f.most - 1)
		f.wait()
		f.add(10)
		go func() {
			time.Sleep(time.Millisecond)
			f.done(5) // too few
			time.Sleep(time.Millisecond / 2)
			f.done(5)
		}()
		f.wait()
		if took := time.Since(begin); took != 1500*time.Microsecond {
			t.Errorf("there was room after %v", took)
		}
		// Those that were dropped on the way hold nobody up for long.
		f.add(f.most)
		begin = time.Now()
		take := f.receive(func([][]byte, []int, []conn.Endpoint) (int, error) { return 3, nil })
		if n, err := take(nil, nil, nil); n != 3 || err != nil || time.Since(begin) != stuck || f.n != 3 {
			t.Errorf("%d packets, %v, after %v, %d in flight", n, err, time.Since(begin), f.n)
		}
		f.done(100)
		if f.n != 0 {
			t.Errorf("%d in flight", f.n)
		}
	})
}
