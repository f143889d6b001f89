package tunnel

import (
	"runtime"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// flight bounds the packets that are between one end of the device and the other. WireGuard's queues would take hundreds of
// megabytes before they make anybody wait; what does not fit waits, or is lost, in the kernel's, which are made for it.
type flight struct {
	most int
	mu   sync.Mutex
	n    int
	room chan struct{}
}

func newFlight() *flight {
	return &flight{most: min(perCPU*runtime.NumCPU(), mostInFlight), room: make(chan struct{}, 1)}
}

// How many packets a processor has to do, and how many all of them. WireGuard has a buffer of 64 KiB for each, 384 more, and up to two
// batches beyond these bounds: all of it is to stay below the limit of memory, or the collector never rests.
const (
	perCPU       = 64
	mostInFlight = 320
)

func (f *flight) add(n int) {
	f.mu.Lock()
	f.n += n
	f.mu.Unlock()
}

func (f *flight) done(n int) {
	f.mu.Lock()
	f.n = max(0, f.n-n)
	free := f.n < f.most
	f.mu.Unlock()
	if free {
		select {
		case f.room <- struct{}{}:
		default:
		}
	}
}

// stuck is how long nothing may come out. What is in flight by the count but not in truth was dropped on the way: it had no
// peer, or was none of the packets that the other end sees.
const stuck = 2 * time.Millisecond

// wait waits for room.
func (f *flight) wait() {
	for {
		f.mu.Lock()
		full := f.n >= f.most
		f.mu.Unlock()
		if !full {
			return
		}
		late := time.NewTimer(stuck)
		select {
		case <-f.room:
		case <-late.C:
			f.mu.Lock()
			f.n = 0
			f.mu.Unlock()
		}
		late.Stop()
	}
}

// receive is a function of the bind that counts what it takes.
func (f *flight) receive(take conn.ReceiveFunc) conn.ReceiveFunc {
	return func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		f.wait()
		n, err := take(packets, sizes, eps)
		f.add(n)
		return n, err
	}
}
