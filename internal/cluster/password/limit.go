package password

import (
	"net/netip"
	"sync"
	"time"
)

// What a Limiter lets through.
const (
	perSecond    = 10              // failed proofs in all
	firstDelay   = time.Second     // after the first one from an address; then twice as long each time
	longestDelay = time.Minute     // of these
	forgetAfter  = 5 * time.Minute // since an address may try again
	maxAddresses = 4096
)

// Limiter bounds how many wrong guesses there may be: ten a second in all, and one a second from one address, which
// then has to wait longer each time. A right proof uses nothing up. The zero value is ready.
type Limiter struct {
	mu     sync.Mutex
	failed uint64
	tokens float64 // that have been used
	last   time.Time
	from   map[netip.Prefix]*offender
}

type offender struct {
	times int
	until time.Time
}

// Attempt runs check, which tells whether a proof is right, unless too many have been wrong: then check is not run,
// so that nothing is learned from it, and wait says when the next may be. An address that is not known (of a
// host behind another) is counted as one.
func (l *Limiter) Attempt(from netip.Addr, check func() bool) (right bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if wait := l.wait(from, now); wait > 0 {
		return false, wait
	}
	if check() {
		delete(l.from, source(from))
		return true, 0
	}
	l.failed++
	l.tokens++
	l.punish(source(from), now)
	return false, 0
}

// Wait says how long an address has to wait; 0 is not at all.
func (l *Limiter) Wait(from netip.Addr) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wait(from, time.Now())
}

// Failed is the number of wrong proofs so far.
func (l *Limiter) Failed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *Limiter) wait(from netip.Addr, now time.Time) time.Duration {
	l.tokens = max(0, l.tokens-now.Sub(l.last).Seconds()*perSecond)
	l.last = now
	if o := l.from[source(from)]; o != nil && now.Before(o.until) {
		return o.until.Sub(now)
	}
	if over := l.tokens - (perSecond - 1); over > 0 {
		return time.Duration(over / perSecond * float64(time.Second))
	}
	return 0
}

func (l *Limiter) punish(from netip.Prefix, now time.Time) {
	if l.from == nil {
		l.from = map[netip.Prefix]*offender{}
	}
	o := l.from[from]
	if o == nil || now.Sub(o.until) > forgetAfter {
		if o == nil {
			l.makeRoom(now)
		}
		o = &offender{}
		l.from[from] = o
	}
	delay := firstDelay << min(o.times, 10)
	o.times++
	o.until = now.Add(min(delay, longestDelay))
}

// makeRoom forgets those that need not be remembered any more. As there are ten new ones a second at most, and none is kept for longer than
// six minutes, there is room then.
func (l *Limiter) makeRoom(now time.Time) {
	if len(l.from) < maxAddresses {
		return
	}
	for p, o := range l.from {
		if now.Sub(o.until) > forgetAfter {
			delete(l.from, p)
		}
	}
}

// source is what counts as one address: with IPv6 a /64, since whoever has one address there has all of them.
func source(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // the zero Prefix for what is no address
	return p
}
