package link

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Bounds of reaching hosts to which there is no link.
const (
	maxAttempts  = 256
	maxQueued    = 32 // messages that wait for a link
	maxAddresses = 4
	maxRelays    = 8
	headStart    = 250 * time.Millisecond // of a direct link over one through another host
	triedFor     = 2 * time.Second        // one address, or one host between
	tryAgain     = time.Second            // after all failed
)

// attempt is the search for a way to a host to which there is no link. There is one for each host at most.
type attempt struct {
	host record.Host
	done chan struct{}

	mu      sync.Mutex
	over    bool
	link    *link
	err     error
	packets [][]byte
}

// attempt begins one, or joins it. It goes on when the caller has gone.
func (l *Links) attempt(h record.Host) (*attempt, error) {
	if h == l.self {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "host %s: it is this host", h.Short())
	}
	if l.cfg.Standing(h) == Removed {
		return nil, (&RefusedError{Reason: RemovedThere, Address: "host " + h.Short(), Host: h}).hinted()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.attempts[h]; a != nil {
		return a, nil
	}
	switch {
	case l.closed:
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: no link: %v", h.Short(), Leaving)
	case len(l.attempts) >= maxAttempts:
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: too many hosts are looked for already", h.Short())
	}
	a := &attempt{host: h, done: make(chan struct{})}
	l.attempts[h] = a
	l.running.Go(func() { l.search(a) })
	return a, nil
}

// search looks for a way. After a failure it is not looked for again for a moment: who asks in that time gets its error.
func (l *Links) search(a *attempt) {
	k, err := l.reach(a.host)
	if k == nil {
		if k = l.best(a.host); k != nil { // it came the other way
			err = nil
		}
	}
	a.mu.Lock()
	a.over, a.link, a.err = true, k, err
	packets := a.packets
	a.packets = nil
	close(a.done)
	a.mu.Unlock()
	if err != nil {
		select {
		case <-time.After(tryAgain):
		case <-l.life.Done():
		}
	}
	for _, b := range packets {
		if k != nil {
			k.send(b)
		}
	}
	l.mu.Lock()
	delete(l.attempts, a.host)
	l.mu.Unlock()
}

// queue keeps a message until there is a link.
func (a *attempt) queue(b []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over && a.err != nil:
		return a.err
	case a.over:
		a.link.send(b)
	case len(a.packets) >= maxQueued:
		return errdefs.Errorf(errdefs.ErrUnavailable, "host %s: too many messages wait already", a.host.Short())
	default:
		a.packets = append(a.packets, b)
	}
	return nil
}

func (a *attempt) wait(ctx context.Context) (*link, error) {
	select {
	case <-a.done:
		return a.link, a.err
	case <-ctx.Done():
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: no link yet: %w", a.host.Short(), context.Cause(ctx))
	}
}

// reach dials a host, and a moment later tries to get to it through others. The first link there is counts; a direct one that
// comes later replaces it by itself.
func (l *Links) reach(h record.Host) (*link, error) {
	type result struct {
		link *link
		err  error
	}
	results := make(chan result, 2)
	direct := make(chan struct{})
	l.running.Go(func() {
		defer close(direct)
		k, err := l.reachDirectly(h)
		results <- result{k, err}
	})
	l.running.Go(func() {
		select {
		case <-direct:
		case <-time.After(headStart):
		}
		if k := l.best(h); k != nil {
			results <- result{k, nil}
			return
		}
		k, err := l.reachThrough(h)
		results <- result{k, err}
	})
	var errs []error
	for range 2 {
		r := <-results
		if r.link != nil {
			return r.link, nil
		}
		errs = append(errs, r.err)
	}
	if err := errdefs.Join(errs...); err != nil {
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: cannot be reached: %w", h.Short(), err)
	}
	return nil, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: cannot be reached: no address of it is known, and no host that has a link to it", h.Short())
}

func (l *Links) reachDirectly(h record.Host) (*link, error) {
	if l.cfg.Addresses == nil {
		return nil, nil
	}
	var errs []error
	addresses := l.cfg.Addresses(h)
	for _, a := range addresses[:min(len(addresses), maxAddresses)] {
		ctx, cancel := context.WithTimeout(l.life, triedFor)
		k, err := l.dial(ctx, a.String(), h, true)
		cancel()
		if err == nil {
			return k, nil
		}
		errs = append(errs, err)
	}
	return nil, errdefs.Join(errs...)
}

func (l *Links) reachThrough(h record.Host) (*link, error) {
	var errs []error
	for _, between := range l.relays(h) {
		ctx, cancel := context.WithTimeout(l.life, triedFor)
		k, err := l.dialThrough(ctx, between, h)
		cancel()
		if err == nil {
			return k, nil
		}
		errs = append(errs, err)
	}
	return nil, errdefs.Join(errs...)
}

// relays are the direct links through which to try a host: those that the caller knows to have one to it, then the others, the
// quickest first.
func (l *Links) relays(h record.Host) (links []*link) {
	var preferred []record.Host
	if l.cfg.Relays != nil {
		preferred = l.cfg.Relays(h)
	}
	rank := func(k *link) int {
		if i := slices.Index(preferred, k.host); i >= 0 {
			return i
		}
		return len(preferred)
	}
	l.mu.Lock()
	for host := range l.hosts {
		if k := l.bestLocked(host); k != nil && k.direct() && host != h {
			links = append(links, k)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(links, func(a, b *link) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return int(a.rtt.Load() - b.rtt.Load())
	})
	return links[:min(len(links), maxRelays)]
}
