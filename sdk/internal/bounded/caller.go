package bounded

import (
	"context"
	"sync/atomic"
)

// Caller is one who can be answered from another goroutine while its own is in the driver.
// The first verb of a Caller runs in its goroutine; one that comes after it, or in a context
// that outlived the call, does not.
type Caller struct {
	late atomic.Pointer[func(error)]
}

// NewCaller returns a Caller. late answers it with an error; it is called once at the most,
// and only when the limit has passed and the driver has not come back.
func NewCaller(late func(error)) *Caller {
	c := new(Caller)
	c.late.Store(&late)
	return c
}

type callerKey struct{}

// With returns a context for the verbs of c.
func (c *Caller) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Answered ends the call.
func (c *Caller) Answered() { c.late.Store(nil) }

// lateOf returns what answers the Caller to whom ctx belongs, to the first who asks, or nil.
func lateOf(ctx context.Context) func(error) {
	c, ok := ctx.Value(callerKey{}).(*Caller)
	if !ok {
		return nil
	}
	if late := c.late.Swap(nil); late != nil {
		return *late
	}
	return nil
}
