package bounded

import (
	"context"
	"sync"
)

// Caller is one who can be answered from another goroutine while its own is in the driver,
// and for whom what is not part of the answer can be done after it. The first verb of a
// Caller runs in its goroutine. One that comes too late for it, in a context that outlived
// the call, is nobody's.
type Caller struct {
	mu       sync.Mutex
	late     func(error)
	after    []func()
	answered bool
}

// NewCaller returns a Caller. late answers it with an error; it is called once at the most,
// and only when the limit has passed and the driver has not come back.
func NewCaller(late func(error)) *Caller { return &Caller{late: late} }

type callerKey struct{}

// With returns a context for the verbs of c.
func (c *Caller) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns the Caller to whom ctx belongs, or nil.
func callerOf(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// take returns what answers c late, to the first who asks.
func (c *Caller) take() func(error) {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	late := c.late
	c.late = nil
	return late
}

// Answered ends the call. If something was left for the time after the answer, it sends the
// answer and then does that.
func (c *Caller) Answered(send func()) {
	c.mu.Lock()
	after := c.after
	c.after, c.late, c.answered = nil, nil, true
	c.mu.Unlock()
	if len(after) > 0 {
		send()
	}
	for _, f := range after {
		f()
	}
}

// After runs f when the caller of the verb to which ctx belongs has its answer; at once where
// there is no such caller any more. f must not be needed by anybody.
func After(ctx context.Context, f func()) {
	if c := callerOf(ctx); c == nil || !c.leave(f) {
		f()
	}
}

// leave leaves f for the time after the answer, if that is still to come.
func (c *Caller) leave(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered {
		return false
	}
	c.after = append(c.after, f)
	return true
}
