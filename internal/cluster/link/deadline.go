package link

import (
	"sync"
	"time"
)

// deadline is one of a net.Conn: a channel that is closed when it has passed.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{}
}

func makeDeadline() deadline { return deadline{over: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // the timer is about to close it
	}
	d.timer = nil
	passed := d.closed()
	switch left := time.Until(t); {
	case t.IsZero(), left > 0:
		if passed {
			d.over = make(chan struct{})
		}
		if !t.IsZero() {
			over := d.over
			d.timer = time.AfterFunc(left, func() { close(over) })
		}
	case !passed:
		close(d.over)
	}
}

// stop ends the timer; nobody waits any more.
func (d *deadline) stop() { d.set(time.Time{}) }

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed()
}

func (d *deadline) closed() bool {
	select {
	case <-d.over:
		return true
	default:
		return false
	}
}
