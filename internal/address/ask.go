package address

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Request is what one host asks of another that owns addresses.
type Request struct {
	Space   string       `json:"space"`            // ID of a network, "" is the cluster's range
	Subnet  netip.Prefix `json:"subnet,omitzero"`  // of the network
	Address netip.Addr   `json:"address,omitzero"` // the block that this is of; zero is any
	V6      bool         `json:"v6,omitempty"`     // of the cluster's range
	Life    uint64       `json:"life"`             // the asker's incarnation
}

// Answer says what was given. The grant itself comes as every record does.
type Answer struct {
	Prefix netip.Prefix `json:"prefix"`
}

const (
	askTimeout     = 5 * time.Second
	arrivalTimeout = 5 * time.Second
)

// acquire gets more addresses from another host. Those who want the same at the same time share one request.
func (a *Allocator) acquire(ctx context.Context, w wanted) error {
	a.mu.Lock()
	if asking, ok := a.asking[w]; ok {
		a.mu.Unlock()
		select {
		case <-asking:
			return nil // and look again
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{})
	a.asking[w] = done
	v := a.look()
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.asking, w)
		a.mu.Unlock()
		close(done)
	}()
	return a.askAll(ctx, v, w)
}

func (a *Allocator) askAll(ctx context.Context, v *view, w wanted) error {
	a.mu.Lock()
	s, err := v.space(w.space, netip.Prefix{})
	if err != nil {
		a.mu.Unlock()
		return err
	}
	donors := v.donors(s, w)
	a.mu.Unlock()
	if v.removed(v.self) {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "this host was removed from the cluster"), "let it join again")
	}
	r := Request{Space: w.space, Subnet: w.subnet, Address: w.address, Life: v.members[v.self].life}
	if w.space == clusterRange {
		r.Subnet, r.V6 = netip.Prefix{}, w.subnet.Addr().Is6()
	}
	var why []string
	for _, h := range donors {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		answer, err := a.config.Asker.Ask(asking, h, r)
		cancel()
		if err == nil {
			err = a.arrived(ctx, w, answer.Prefix)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		why = append(why, fmt.Sprintf("%s: %v", v.nickname(h), err))
		if w.address.IsValid() && !errors.Is(err, errdefs.ErrUnavailable) {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "address %s: host %s has it: %w", w.address, v.nickname(h), err),
				"choose an address that no other host has: `remora network status ipam` shows who has which")
		}
	}
	if why == nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "no other host has any of %s to give", s)
	}
	err = errdefs.Errorf(errdefs.ErrUnavailable, "no host that has some of %s gave any (%s)", s, strings.Join(why, "; "))
	return errdefs.Hint(err, "connect to one of these hosts; if one is gone for good, `remora network rmpeer` frees what it has")
}

// donors returns the hosts to ask, the one that owns the largest piece first.
func (v *view) donors(s Space, w wanted) []record.Host {
	size := map[record.Host]int{}
	var hosts []record.Host
	for _, h := range v.owners(s.ID) {
		wrong := w.address.IsValid() && !h.prefix.Contains(w.address) || w.subnet.IsValid() && !w.subnet.Overlaps(h.prefix)
		if wrong || h.to == v.self || v.removed(h.to) {
			continue
		}
		old, ok := size[h.to]
		if !ok {
			hosts = append(hosts, h.to)
			old = h.prefix.Bits()
		}
		size[h.to] = min(old, h.prefix.Bits())
	}
	slices.SortStableFunc(hosts, func(x, y record.Host) int { return cmp.Or(cmp.Compare(size[x], size[y]), x.Compare(y)) })
	return hosts
}

// arrived waits until the grant of p is here.
func (a *Allocator) arrived(ctx context.Context, w wanted, p netip.Prefix) error {
	changed, stop := a.config.Store.Watch(kinds...)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	for {
		a.mu.Lock()
		a.view = nil
		mine := a.look().mine(w.space)
		a.mu.Unlock()
		if len(minus([]netip.Prefix{p}, prefixesOf(mine))) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errdefs.Errorf(errdefs.ErrUnavailable, "%s was given, but its record has not come", p)
		}
	}
}

// Answer gives addresses of this host to another, as that asked: half of what it has at first, one block at the
// end. Where it has none to give it is ErrUnavailable.
func (a *Allocator) Answer(_ context.Context, from record.Host, r Request) (Answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.look()
	m, ok := v.members[from]
	if !ok || v.removed(from) && r.Life <= v.removals[from].incarnation || from == v.self {
		return Answer{}, errdefs.Errorf(errdefs.ErrDenied, "host %s: not a member", from.Short())
	}
	s, err := v.space(r.Space, r.Subnet)
	if err != nil {
		return Answer{}, err
	}
	parts := s.Range
	if r.Address.IsValid() {
		parts = s.Prefixes
	}
	if r.Subnet.IsValid() {
		parts = common(parts, []netip.Prefix{r.Subnet})
	} else {
		parts = ofFamily(parts, r.V6 || r.Address.Is6())
	}
	mine := v.mine(s.ID)
	free := minus(common(prefixesOf(mine), parts), a.busy(v, s))
	p, err := pick(s, free, r.Address)
	if err != nil {
		return Answer{}, err
	}
	return Answer{p}, a.give(mine, s, p, from, max(r.Life, m.life))
}

// pick returns what of free is given away.
func pick(s Space, free []netip.Prefix, address netip.Addr) (netip.Prefix, error) {
	if address.IsValid() {
		b := s.block(address)
		if len(minus([]netip.Prefix{b}, free)) > 0 {
			return b, errdefs.Errorf(errdefs.ErrInUse, "block %s is in use there", b)
		}
		return b, nil
	}
	if len(free) == 0 {
		return netip.Prefix{}, errdefs.Errorf(errdefs.ErrUnavailable, "all that it has is in use")
	}
	slices.SortFunc(free, bySize)
	p := free[0]
	if len(free) == 1 && p.Bits() < s.bits(p) {
		_, p = halves(p)
	}
	return p, nil
}

// busy returns what of s this host needs itself.
func (a *Allocator) busy(v *view, s Space) []netip.Prefix {
	if s.ID != clusterRange {
		return a.blocks(s, netip.Prefix{}, false)
	}
	var out []netip.Prefix
	for p := range v.subnets() {
		out = append(out, p)
	}
	return out
}

// give writes the grant of p, which is of what is mine. The caller holds mu.
func (a *Allocator) give(mine []held, s Space, p netip.Prefix, to record.Host, life uint64) error {
	g := record.Grant{Space: s.ID, Prefix: p, To: to, Life: life}
	for _, h := range mine {
		if h.prefix.Overlaps(p) {
			g.Serial = max(g.Serial, h.serial+1)
		}
	}
	return a.write(g)
}

func (a *Allocator) write(g record.Grant) error {
	a.view = nil
	return a.config.Store.Put(record.KindGrant, grantName(g), g)
}

func grantName(g record.Grant) string { return fmt.Sprintf("%s %s %d", g.Space, g.Prefix, g.Serial) }
