package cluster

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Pauses between two attempts to reach a host, and how many targets there may be.
const (
	firstPause = 200 * time.Millisecond
	// steadyPause is the longest while nobody answers, for however long: it costs a packet or two, and what was cut off is
	// back in a moment.
	steadyPause = 1500 * time.Millisecond
	// soonPause and lastPause are the longest after a refusal, in the first minutes and from then on.
	soonPause  = 3 * time.Second
	lastPause  = 30 * time.Second
	soonFor    = 5 * time.Minute
	dialLimit  = 5 * time.Second
	maxTargets = 256
	port       = 6783 // where an address has none
	// Of the addresses of one host, which are dialled one after the other without waiting for those before.
	maxAddresses = 8
	stagger      = 300 * time.Millisecond
)

// Target is an address that this host was told to connect to.
type Target struct {
	Address string
	State   string      // "connected", "connecting" or "failed"
	Host    record.Host // who answered last; zero if nobody has yet
	Err     error       // of the last attempt, if that failed
	Since   time.Time   // of this state
	Tries   int         // that failed, in a row
	Next    time.Time   // of the next attempt
}

// keeper keeps a link, to a target's address or to a neighbour.
type keeper struct {
	Target // of a neighbour it has the Host from the start, and no Address
	end    context.CancelFunc
	wake   chan struct{}
}

// Connect adds addresses, hosts with or without a port, to those that this host keeps links to, now and when it is started
// again. With replace, they are all that there are.
func (c *Cluster) Connect(addresses []string, replace bool) error {
	var clean []string
	for _, a := range addresses {
		a, err := normal(a)
		if err != nil {
			return err
		}
		if !slices.Contains(clean, a) {
			clean = append(clean, a)
		}
	}
	return c.setTargets(func(have []string) ([]string, error) {
		if replace {
			have = nil
		}
		for _, a := range clean {
			if !slices.Contains(have, a) {
				have = append(have, a)
			}
		}
		if len(have) > maxTargets {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "connect: more than %d targets: the others are found through one", maxTargets)
		}
		return have, nil
	})
}

// Forget takes addresses from those that this host keeps links to. Links that there are stay. One that is no target is
// ErrNotFound, after the others are forgotten.
func (c *Cluster) Forget(addresses []string) error {
	var missing []error
	err := c.setTargets(func(have []string) ([]string, error) {
		for _, a := range addresses {
			clean, err := normal(a)
			if err == nil && !slices.Contains(have, clean) {
				err = errdefs.Errorf(errdefs.ErrNotFound, "forget %q: no target of this host", a)
			}
			if err != nil {
				missing = append(missing, err)
			}
			have = slices.DeleteFunc(have, func(h string) bool { return h == clean })
		}
		return have, nil
	})
	if err != nil {
		return err
	}
	return errdefs.Join(missing...)
}

func (c *Cluster) setTargets(change func([]string) ([]string, error)) error {
	c.entering.Lock() // the state is written by one at a time
	defer c.entering.Unlock()
	c.mu.Lock()
	next := c.state
	c.mu.Unlock()
	targets, err := change(slices.Clone(next.Targets))
	if err != nil {
		return err
	}
	next.Targets = targets
	if err := state.Write(c.cfg.Root, stateName, stateVersion, next); err != nil {
		return errdefs.As(errdefs.ErrUnavailable, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Targets = targets
	for a, k := range c.targets {
		if !slices.Contains(targets, a) {
			k.end()
			delete(c.targets, a)
			delete(c.others, a)
		}
	}
	if c.net != nil {
		for _, a := range targets {
			c.target(a)
		}
	}
	c.changed()
	return nil
}

// normal returns the address with a port.
func normal(a string) (string, error) {
	host, p, err := net.SplitHostPort(a)
	if err != nil {
		host, p = strings.TrimSuffix(strings.TrimPrefix(a, "["), "]"), strconv.Itoa(port)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if host == "" || strings.ContainsAny(host, " /[]@") || err != nil || n == 0 {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "address %q: not HOST or HOST:PORT", a)
	}
	return net.JoinHostPort(strings.ToLower(host), p), nil
}

// Targets returns the addresses that this host was told to connect to, in their order.
func (c *Cluster) Targets() []Target {
	c.mu.Lock()
	defer c.mu.Unlock()
	targets := make([]Target, 0, len(c.state.Targets))
	for _, a := range c.state.Targets {
		t := Target{Address: a, State: "connecting"}
		if k := c.targets[a]; k != nil {
			t = k.Target
		}
		targets = append(targets, t)
	}
	return targets
}

// target begins to keep a link to an address. Callers hold mu.
func (c *Cluster) target(address string) {
	if c.targets[address] == nil && !c.closed {
		c.targets[address] = c.keep(Target{Address: address})
	}
}

// keep begins to keep a link. Callers hold mu.
func (c *Cluster) keep(t Target) *keeper {
	t.State, t.Since = "connecting", time.Now()
	k := &keeper{Target: t, wake: make(chan struct{}, 1)}
	ctx, end := context.WithCancel(c.life)
	k.end = end
	c.running.Go(func() {
		defer end()
		c.hold(ctx, k)
	})
	return k
}

// hold dials whenever there is no link, with growing pauses.
func (c *Cluster) hold(ctx context.Context, k *keeper) {
	pause, since := firstPause, time.Now()
	if k.Address == "" && c.self.Compare(k.Host) > 0 {
		pause *= 4 // both sides dial: the lower one first
	}
	if k.Address == "" && !sleep(ctx, jitter(pause), k.wake) {
		return
	}
	for ctx.Err() == nil {
		if c.linked(k) {
			select {
			case <-k.wake:
			case <-ctx.Done():
				return
			}
			if !c.linked(k) {
				pause, since = firstPause, time.Now()
				if !sleep(ctx, jitter(pause), nil) {
					return
				}
			}
			continue
		}
		err := c.dial(ctx, k)
		if err == nil {
			pause, since = firstPause, time.Now()
			// It is known in a moment, unless it has broken already.
			if !c.linked(k) && !sleep(ctx, jitter(firstPause), k.wake) {
				return
			}
			continue
		}
		wait, wake := jitter(pause), k.wake
		if later, ok := errors.AsType[*LaterError](err); ok {
			wait, wake = later.Wait+jitter(firstPause), nil // before that it would count as one more
		}
		c.failed(k, err, wait)
		if !sleep(ctx, wait, wake) {
			return
		}
		pause = min(2*pause, longest(err, since))
	}
}

// longest is the longest pause after an attempt that failed. Who refuses will not think better of it within a second.
func longest(err error, since time.Time) time.Duration {
	switch {
	case !errors.Is(err, errdefs.ErrDenied) && !errors.Is(err, errdefs.ErrUnsupported) && !errors.Is(err, errdefs.ErrInvalid):
		return steadyPause
	case time.Since(since) < soonFor:
		return soonPause
	}
	return lastPause
}

// Redial has all who keep a link that is not there try at once: the ways out of this host are others than before.
func (c *Cluster) Redial() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.targets {
		k.poke()
	}
	for _, k := range c.near {
		k.poke()
	}
}

// poke wakes who keeps the link.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// linked reports whether there is a link to whom the keeper is for, and notes it.
func (c *Cluster) linked(k *keeper) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.up[k.Host]
	ok = ok && p.Via.IsZero()
	if ok && k.State != "connected" {
		k.State, k.Since, k.Err, k.Tries, k.Next = "connected", time.Now(), nil, 0, time.Time{}
		c.changed()
	}
	if !ok && k.State == "connected" {
		k.State, k.Since = "connecting", time.Now()
		c.changed()
	}
	return ok
}

func (c *Cluster) failed(k *keeper, err error, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, later := errors.AsType[*LaterError](err); later && errors.Is(k.Err, errdefs.ErrDenied) {
		err = k.Err // why it has to wait
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errdefs.Errorf(errdefs.ErrUnavailable, "%s: no answer", cmp.Or(k.Address, "host "+k.Host.Short()))
	}
	if k.State != "failed" {
		k.State, k.Since = "failed", time.Now()
	}
	k.Err, k.Next = err, time.Now().Add(wait)
	k.Tries++
	c.changed()
	if g := c.gossip; g != nil && k.Address == "" && !c.closed {
		c.running.Go(func() { g.doubt(k.Host) })
	}
}

// whyNot says in one line why no target answers.
func (c *Cluster) whyNot() string {
	var errs []error
	for _, t := range c.Targets() {
		if t.Err != nil {
			errs = append(errs, t.Err)
		}
	}
	if err := errdefs.Join(errs...); err != nil {
		return err.Error()
	}
	return "those that answer are in none either"
}

// jitter returns a half to three halves of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// sleep returns false if ctx ended, true after d or as soon as wake has a value.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
		return false
	}
	return true
}
