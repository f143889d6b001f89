package ipam

import (
	"context"
	"crypto/rand"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Config of an [Allocator]. The zero value works, but forgets everything when the plugin
// ends: then every engine has to be restarted, too.
type Config struct {
	// Local and Global are the names of the address spaces; empty is "local", "global".
	Local, Global string
	// Ranges are where pools come from for a network without "--subnet", in order; nil is
	// [DefaultRanges].
	Ranges []Range
	// State remembers pools and addresses; see [Dir]. nil keeps them in memory alone, and
	// asks engines to replay what they have when they start.
	State State
}

// Range is addresses from which pools of one size are cut.
type Range struct {
	Prefix netip.Prefix
	// Bits is the prefix length of each pool.
	Bits int
}

// DefaultRanges returns 256 pools of 254 addresses, and 65,536 of IPv6 that are for
// private use (RFC 4193). They keep away from dockerd's own.
func DefaultRanges() []Range {
	return []Range{
		{netip.MustParsePrefix("10.201.0.0/16"), 24},
		{netip.MustParsePrefix("fd52:656d:6f72::/48"), 64},
	}
}

// Allocator is a [Driver] that hands out pools and addresses of its own. Make it with
// [NewAllocator].
//
// No two pools of one address space overlap. The addresses of a pool are handed out from
// the lowest on, without the first and, for IPv4, the last, which name the network and
// everybody in it; the gateway gets the first that remains. With "--ip-range" addresses
// come from there, and any other must be named.
//
// An address that is named must be free. Without a State it is also handed out, once,
// if it was in use when its pool was requested again, which is how an engine that starts
// replays what it has; until then it is given to another only when there is no other.
type Allocator struct {
	config Config

	choosing sync.Mutex // held while a pool comes or goes; taken before a pool's own
	mu       sync.Mutex // of pools, never held while waiting; taken after a pool's own
	pools    map[string]*pool
}

// pool is one pool that is out.
type pool struct {
	mu     sync.Mutex
	gone   bool
	record poolRecord
}

// NewAllocator returns an Allocator that has what its State remembers. It fails when the
// State cannot be read, or the Config makes no sense (ErrInvalid). ctx bounds the start
// alone.
func NewAllocator(ctx context.Context, c Config) (*Allocator, error) {
	if c.Local == "" {
		c.Local = "local"
	}
	if c.Global == "" {
		c.Global = "global"
	}
	if c.Ranges == nil {
		c.Ranges = DefaultRanges()
	}
	for _, r := range c.Ranges {
		if !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked() || r.Bits < r.Prefix.Bits() || r.Bits > r.Prefix.Addr().BitLen() {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "range %s: cannot be cut into pools of /%d", r.Prefix, r.Bits)
		}
	}
	a := &Allocator{config: c, pools: map[string]*pool{}}
	if c.State == nil {
		return a, nil
	}
	records, err := load(ctx, c.State)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		a.pools[r.ID] = &pool{record: r}
	}
	return a, nil
}

// Capabilities asks for a replay where there is no State.
func (a *Allocator) Capabilities() Capabilities {
	return Capabilities{RequiresRequestReplay: a.config.State == nil}
}

// DefaultAddressSpaces returns the two of the Config.
func (a *Allocator) DefaultAddressSpaces(context.Context) (local, global string, err error) {
	return a.config.Local, a.config.Global, nil
}

// RequestPool hands out the pool that is asked for, which is ErrInUse where another
// overlaps it, or one of the Ranges, which is ErrUnavailable where none is left.
func (a *Allocator) RequestPool(ctx context.Context, r PoolRequest) (Pool, error) {
	if r.AddressSpace != a.config.Local && r.AddressSpace != a.config.Global {
		return Pool{}, errdefs.Errorf(errdefs.ErrInvalid, "address space %.60q: there are %q and %q", r.AddressSpace, a.config.Local, a.config.Global)
	}
	for key := range r.Options {
		return Pool{}, errdefs.Errorf(errdefs.ErrInvalid, "IPAM option %.60q: there are none", key)
	}
	a.choosing.Lock()
	defer a.choosing.Unlock()
	record := poolRecord{Version: poolVersion, Space: r.AddressSpace, Prefix: r.Pool.Masked(), SubPool: r.SubPool.Masked()}
	if r.Pool.IsValid() {
		p, err := a.taken(record)
		if err != nil {
			return Pool{}, err
		}
		if p != nil {
			return p.again(), nil
		}
	} else {
		var err error
		if record.Prefix, err = a.choose(r.V6); err != nil {
			return Pool{}, err
		}
	}
	record.ID = strings.ReplaceAll(record.Prefix.String(), "/", "-") + "-" + strings.ToLower(rand.Text()[:8])
	if err := a.save(ctx, record); err != nil {
		return Pool{}, err
	}
	a.mu.Lock()
	a.pools[record.ID] = &pool{record: record}
	a.mu.Unlock()
	return Pool{ID: record.ID, Prefix: record.Prefix}, nil
}

// all returns the records of all pools. The caller holds choosing, so that none comes or
// goes.
func (a *Allocator) all() map[*pool]poolRecord {
	a.mu.Lock()
	pools := slices.Collect(maps.Values(a.pools))
	a.mu.Unlock()
	all := make(map[*pool]poolRecord, len(pools))
	for _, p := range pools { // one of which may be waiting for its State
		p.mu.Lock()
		all[p] = p.record
		p.mu.Unlock()
	}
	return all
}

// taken returns nil where want is free, the pool itself where it is requested once more,
// and an error where another has it.
func (a *Allocator) taken(want poolRecord) (*pool, error) {
	for p, r := range a.all() {
		if r.Space != want.Space || !r.Prefix.Overlaps(want.Prefix) {
			continue
		}
		// Of a pool without a single address the engine never heard: its first call is for one.
		same := r.Prefix == want.Prefix && r.SubPool == want.SubPool
		if same && (a.config.State == nil || len(r.Used) == 0) {
			return p, nil
		}
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "pool %s: overlaps pool %s, which is in use", want.Prefix, r.Prefix),
			"choose another --subnet, or remove the network that has it")
	}
	return nil, nil
}

// choose returns the first pool of the Ranges that nothing overlaps, in any space.
func (a *Allocator) choose(v6 bool) (netip.Prefix, error) {
	all := a.all()
	var tried []string
	for _, r := range a.config.Ranges {
		if r.Prefix.Addr().Is6() != v6 {
			continue
		}
		tried = append(tried, r.Prefix.String())
		for p := netip.PrefixFrom(r.Prefix.Addr(), r.Bits); p.IsValid() && r.Prefix.Contains(p.Addr()); {
			over := netip.Prefix{}
			for _, other := range all {
				if other.Prefix.Overlaps(p) {
					over = other.Prefix
					break
				}
			}
			if !over.IsValid() {
				return p, nil
			}
			end := last(p)
			if e := last(over); end.Less(e) {
				end = e
			}
			p = netip.PrefixFrom(end.Next(), r.Bits)
		}
	}
	if tried == nil {
		return netip.Prefix{}, errdefs.Errorf(errdefs.ErrInvalid, "pool: name one, no range of this family is configured")
	}
	return netip.Prefix{}, errdefs.Errorf(errdefs.ErrUnavailable, "pool: none is left in %s", strings.Join(tried, ", "))
}

// again hands p out once more: its addresses are to be confirmed.
func (p *pool) again() Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record.Stale = p.record.Used
	return Pool{ID: p.record.ID, Prefix: p.record.Prefix}
}

// ReleasePool takes a pool back; ErrNotFound where it is not out.
func (a *Allocator) ReleasePool(ctx context.Context, poolID string) error {
	a.choosing.Lock()
	defer a.choosing.Unlock()
	p, err := a.pool(poolID)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.config.State != nil {
		if err := a.config.State.Delete(ctx, poolID); err != nil {
			return err
		}
	}
	p.gone = true // for a call that has found it already
	a.mu.Lock()
	delete(a.pools, poolID)
	a.mu.Unlock()
	return nil
}

func (a *Allocator) pool(id string) (*pool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.pools[id]
	if !ok {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "this plugin does not know the pool"),
			"the plugin lost its state; restart the engine, or remove the network and create it again")
	}
	return p, nil
}

// RequestAddress hands out an address. It is ErrInUse for a named one that somebody has,
// ErrInvalid for one that the pool does not have, and ErrUnavailable where none is left.
func (a *Allocator) RequestAddress(ctx context.Context, r AddressRequest) (Address, error) {
	p, err := a.pool(r.PoolID)
	if err != nil {
		return Address{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return Address{}, errdefs.Errorf(errdefs.ErrNotFound, "the pool was released")
	}
	next := p.record
	var got netip.Addr
	if r.Address.IsValid() {
		got, err = r.Address, next.mayHave(r.Address)
	} else {
		got, err = next.pick(r.Gateway)
	}
	if err != nil {
		return Address{}, err
	}
	next.Used, next.Stale = next.Used.with(got), next.Stale.without(got)
	if err := a.save(ctx, next); err != nil {
		return Address{}, err
	}
	p.record = next
	return Address{Prefix: netip.PrefixFrom(got, next.Prefix.Bits())}, nil
}

// ReleaseAddress takes an address back. One that is not out is no mistake.
func (a *Allocator) ReleaseAddress(ctx context.Context, poolID string, addr netip.Addr) error {
	p, err := a.pool(poolID)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.record
	next.Used, next.Stale = next.Used.without(addr), next.Stale.without(addr)
	if p.gone || !p.record.Used.has(addr) {
		return nil
	}
	if err := a.save(ctx, next); err != nil {
		return err
	}
	p.record = next
	return nil
}

// bounds returns the first and the last address that p hands out.
func bounds(p netip.Prefix) (lo, hi netip.Addr) {
	lo, hi = p.Masked().Addr(), last(p)
	if p.IsSingleIP() || p.Bits() == p.Addr().BitLen()-1 {
		return lo, hi // RFC 3021, RFC 6164
	}
	if p.Addr().Is4() {
		hi = hi.Prev()
	}
	return lo.Next(), hi
}

// mayHave returns nil where addr may be handed out.
func (r poolRecord) mayHave(addr netip.Addr) error {
	lo, hi := bounds(r.Prefix)
	switch {
	case !r.Prefix.Contains(addr):
		return errdefs.Errorf(errdefs.ErrInvalid, "address %s: not in %s", addr, r.Prefix)
	case addr.Less(lo) || hi.Less(addr):
		return errdefs.Errorf(errdefs.ErrInvalid, "address %s: names the network %s itself", addr, r.Prefix)
	case r.Used.has(addr) && !r.Stale.has(addr):
		return errdefs.Errorf(errdefs.ErrInUse, "address %s: in use", addr)
	}
	return nil
}

// pick chooses an address.
func (r poolRecord) pick(gateway bool) (netip.Addr, error) {
	lo, hi := bounds(r.Prefix)
	if gateway && !r.Used.has(lo) {
		return lo, nil
	}
	where := r.Prefix
	if r.SubPool.IsValid() {
		where = r.SubPool
		// What of the part is at an edge of the whole is kept from it as well.
		if sub := r.SubPool.Masked().Addr(); lo.Less(sub) {
			lo = sub
		}
		if sub := last(r.SubPool); sub.Less(hi) {
			hi = sub
		}
	}
	if got, ok := r.Used.firstFree(lo, hi); ok {
		return got, nil
	}
	for _, s := range r.Stale {
		if got := s.lo; !hi.Less(got) && !s.hi.Less(lo) {
			if got.Less(lo) {
				got = lo
			}
			return got, nil
		}
	}
	return netip.Addr{}, errdefs.Errorf(errdefs.ErrUnavailable, "no address is left in %s", where)
}
