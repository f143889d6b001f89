package authz

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/rpc"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// minCost is what a call costs beside its body, in bytes.
const minCost = 4 << 10

// call is what the Handler remembers of one call while it is at work. Its memory is given
// back when the last holder lets go.
type call struct {
	denied  error
	holders atomic.Int32
	release func()
}

type callKey struct{}

// hold keeps the memory of the call in ctx until the returned function is called.
func hold(ctx context.Context) (release func()) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return func() {}
	}
	c.holders.Add(1)
	return c.drop
}

func (c *call) drop() {
	if c.holders.Add(-1) == 0 {
		c.release()
	}
}

// bounded lets a call begin once there is memory for its body.
func (h *Handler) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cost := r.ContentLength
		if cost < 0 || cost > h.opts.MaxBody {
			cost = h.opts.MaxBody
		}
		cost = max(cost, min(minCost, h.opts.MaxBody))
		ctx, cancel := context.WithTimeout(r.Context(), h.opts.Timeout)
		err := h.memory.take(ctx, cost)
		cancel()
		if err != nil {
			err = errdefs.Errorf(errdefs.ErrUnavailable, "too many requests at once: no memory for another within %v", h.opts.Timeout)
			h.log.WarnContext(r.Context(), "call refused", "error", err.Error())
			rpc.Fail(w, http.StatusServiceUnavailable, err, wire.Error{Err: err.Error()})
			return
		}
		c := &call{release: func() { h.memory.give(cost) }}
		c.holders.Store(1)
		defer c.drop()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}

// budget is a number of bytes that callers share, in the order in which they came.
type budget struct {
	mu    sync.Mutex
	free  int64
	queue []*waiter
}

type waiter struct {
	cost  int64
	ready chan struct{}
}

// take waits for cost bytes. It returns ctx's error when that ends first.
func (b *budget) take(ctx context.Context, cost int64) error {
	b.mu.Lock()
	if len(b.queue) == 0 && b.free >= cost {
		b.free -= cost
		b.mu.Unlock()
		return nil
	}
	w := &waiter{cost: cost, ready: make(chan struct{})}
	b.queue = append(b.queue, w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.queue, w); i >= 0 {
		b.queue = slices.Delete(b.queue, i, i+1)
		b.wake() // the next may want less
		return ctx.Err()
	}
	return nil // it came at the last moment
}

// give returns what take took.
func (b *budget) give(cost int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += cost
	b.wake()
}

// wake serves those at the head of the queue. b.mu is held.
func (b *budget) wake() {
	for len(b.queue) > 0 && b.free >= b.queue[0].cost {
		w := b.queue[0]
		b.queue = slices.Delete(b.queue, 0, 1)
		b.free -= w.cost
		close(w.ready)
	}
}
