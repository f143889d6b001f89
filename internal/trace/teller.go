package trace

import (
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// waiting is how many calls may wait to be told.
	waiting = 1024
	// tellTime is how long the end waits for them to be told.
	tellTime = time.Second
)

// teller tells of calls beside them: a terminal that is held, or a pager at its first page, must not hold up an engine.
type teller struct {
	o     Options
	calls chan Call
	left  atomic.Int64 // out, since the last that was told
	stop  chan struct{}
	done  chan struct{}
}

func newTeller(o Options) *teller {
	t := &teller{o: o, calls: make(chan Call, waiting), stop: make(chan struct{}), done: make(chan struct{})}
	go t.run()
	return t
}

func (t *teller) run() {
	defer close(t.done)
	for {
		select {
		case c := <-t.calls:
			t.show(c)
			continue
		default:
		}
		select {
		case c := <-t.calls:
			t.show(c)
		case <-t.stop:
			return
		}
	}
}

func (t *teller) show(c Call) {
	t.o.Show(c)
	if n := t.left.Swap(0); n > 0 {
		t.o.Say(fmt.Sprintf("%d calls are not shown, since what is shown is not read", n))
	}
}

func (t *teller) tell(c Call) {
	select {
	case t.calls <- c:
	default:
		t.left.Add(1)
	}
}

// end has what waits told.
func (t *teller) end() {
	close(t.stop)
	select {
	case <-t.done:
	case <-time.After(tellTime):
	}
}
