// Package keylock is a mutex for each of any number of keys. Holders of different
// keys never wait for one another, and whoever waits stops when its context ends.
package keylock

import (
	"context"
	"sync"
)

// Locks is a set of mutexes, one for each key. The zero value is ready, with no key
// held; it must not be copied after its first use. A key costs memory only while it
// is held or waited for.
type Locks struct {
	mu      sync.Mutex
	entries map[string]*entry
}

// entry is the mutex of one key. It exists as long as users is above zero.
type entry struct {
	held  chan struct{} // full while the key is held
	users int           // holder and waiters, under Locks.mu
}

// Lock waits until key is free and takes it. The caller gives it back by calling
// unlock, once or more often; only the first call counts. When ctx ends first the
// error is its cause, unlock is nil and nothing is held; a context that ended before
// the call gets nothing, even if the key is free. Waiters are served in the order in
// which they came. A key is not re-entrant.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	e := l.enter(key)
	select {
	case e.held <- struct{}{}:
	case <-ctx.Done():
		l.leave(key, e)
		return nil, context.Cause(ctx)
	}
	return l.unlock(key, e), nil
}

// TryLock takes the key if it is free, without waiting. ok tells whether it did; unlock is
// as that of Lock.
func (l *Locks) TryLock(key string) (unlock func(), ok bool) {
	e := l.enter(key)
	select {
	case e.held <- struct{}{}:
		return l.unlock(key, e), true
	default:
		l.leave(key, e)
		return nil, false
	}
}

// unlock returns what gives key back.
func (l *Locks) unlock(key string, e *entry) func() {
	return sync.OnceFunc(func() {
		<-e.held
		l.leave(key, e)
	})
}

// enter counts one more user of key.
func (l *Locks) enter(key string) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	if e == nil {
		if l.entries == nil {
			l.entries = make(map[string]*entry)
		}
		e = &entry{held: make(chan struct{}, 1)}
		l.entries[key] = e
	}
	e.users++
	return e
}

// leave counts one user less, and forgets the key with the last.
func (l *Locks) leave(key string, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(l.entries, key)
	}
}
