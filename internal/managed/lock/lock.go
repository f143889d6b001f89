// Package lock has locks by name, for which one waits no longer than a context lasts.
package lock

import (
	"context"
	"sync"
)

// Keyed are locks by name. One that nobody holds or waits for is not kept. The zero value is ready.
type Keyed struct {
	mu    sync.Mutex
	locks map[string]*held
}

type held struct {
	token chan struct{}
	users int
}

// Lock waits for the lock of a name, and returns what gives it back.
func (k *Keyed) Lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*held{}
	}
	h := k.locks[name]
	if h == nil {
		h = &held{token: make(chan struct{}, 1)}
		k.locks[name] = h
	}
	h.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(k.locks, name)
		}
	}
	select {
	case h.token <- struct{}{}:
		return func() { <-h.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
