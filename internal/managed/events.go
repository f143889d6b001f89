package managed

import (
	"sync"
	"time"
)

// Event is something that has happened, in the form of the engine's API.
type Event struct {
	Type     string `json:"Type"`
	Action   string `json:"Action"`
	Actor    Actor  `json:"Actor"`
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

// Actor is what it happened to.
type Actor struct {
	ID         string            `json:"ID"`
	Attributes map[string]string `json:"Attributes"`
}

// At is when it happened.
func (e Event) At() time.Time { return time.Unix(0, e.TimeNano) }

// What is kept of the past, and what may wait for one who reads slowly; who is slower is told nothing more.
const (
	eventsKept    = 256
	eventsWaiting = 1024
)

// Events remembers the last events and tells of new ones.
type Events struct {
	mu      sync.Mutex
	past    []Event
	readers map[chan Event]bool
}

// Add tells of an event now.
func (e *Events) Add(kind, action, id string, attributes map[string]string) {
	now := time.Now()
	if attributes == nil {
		attributes = map[string]string{}
	}
	ev := Event{Type: kind, Action: action, Actor: Actor{id, attributes}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.past = append(e.past, ev)
	e.past = e.past[max(0, len(e.past)-eventsKept):]
	for ch := range e.readers {
		select {
		case ch <- ev:
		default:
			delete(e.readers, ch)
			close(ch)
		}
	}
}

// Subscribe returns what has happened since a time, nothing where that is zero, and a channel of what happens from
// then on. It is closed when its reader is too slow. stop ends it.
func (e *Events) Subscribe(since time.Time) (past []Event, next <-chan Event, stop func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !since.IsZero() {
		for _, ev := range e.past {
			if !ev.At().Before(since) {
				past = append(past, ev)
			}
		}
	}
	ch := make(chan Event, eventsWaiting)
	if e.readers == nil {
		e.readers = map[chan Event]bool{}
	}
	e.readers[ch] = true
	return past, ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.readers, ch)
	}
}
