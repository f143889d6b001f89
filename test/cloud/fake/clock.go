// Package fake is what every fake cloud is made of: a clock that a test can hold, faults
// by kind of call, counters, throttles, lists that lag behind, and files for the disks.
// Nothing in it knows a cloud.
package fake

import (
	"slices"
	"sync"
	"time"
)

// Clock is the time of a cloud.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in its own goroutine, or for a [Manual] clock in that of Advance,
	// when d has passed.
	AfterFunc(d time.Duration, f func())
}

// System is the machine's clock.
type System struct{}

// Now is the time of day.
func (System) Now() time.Time { return time.Now() }

// AfterFunc is [time.AfterFunc].
func (System) AfterFunc(d time.Duration, f func()) { time.AfterFunc(d, f) }

// Manual is a clock that stands still until it is told to go on.
type Manual struct {
	mu  sync.Mutex
	now time.Time
	due []alarm
}

type alarm struct {
	at time.Time
	f  func()
}

// NewManual is a clock that shows now.
func NewManual(now time.Time) *Manual { return &Manual{now: now} }

// Now is the time to which the clock was advanced.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// AfterFunc has f called by the Advance that passes now + d.
func (m *Manual) AfterFunc(d time.Duration, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.due = append(m.due, alarm{m.now.Add(d), f})
	slices.SortStableFunc(m.due, func(a, b alarm) int { return a.at.Compare(b.at) })
}

// Advance lets d pass. What falls due is called in order, each at its own time, before
// Advance returns; what that sets up in turn is called too if it falls due.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	end := m.now.Add(d)
	for len(m.due) > 0 && !m.due[0].at.After(end) {
		next := m.due[0]
		m.due = m.due[1:]
		if next.at.After(m.now) {
			m.now = next.at
		}
		m.mu.Unlock()
		next.f()
		m.mu.Lock()
	}
	m.now = end
	m.mu.Unlock()
}
