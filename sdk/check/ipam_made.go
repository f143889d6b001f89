package check

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/sdk/client"
)

// madePool is a pool that a case was given.
type madePool struct {
	id  string
	out map[netip.Addr]bool // what was requested of it, and not released since
}

// remove gives everything back in the order in which an engine does.
func (m *madePool) remove(ctx context.Context, c client.IPAM, t *T) {
	for _, a := range slices.SortedFunc(maps.Keys(m.out), netip.Addr.Compare) {
		_ = c.ReleaseAddress(ctx, m.id, a) // the pool tells of what is left
	}
	if err := c.ReleasePool(ctx, m.id); remains(err, true) {
		t.left("pool "+m.id, err)
	}
}

// madePool returns what is known of a pool that was not released; nil is nothing.
func (t *T) madePool(id string) *madePool {
	for _, m := range t.pools {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (t *T) tryPool(r client.PoolRequest) (client.Pool, error) {
	p, err := t.c.IPAM().RequestPool(t.ctx, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.ID != "" && t.madePool(p.ID) == nil {
		t.pools = append(t.pools, &madePool{id: p.ID, out: map[netip.Addr]bool{}})
	}
	return p, err
}

func (t *T) tryAddress(r client.AddressRequest) (netip.Prefix, error) {
	a, err := t.c.IPAM().RequestAddress(t.ctx, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.madePool(r.PoolID); err == nil && m != nil {
		m.out[a.Addr()] = true
	}
	return a, err
}

func (t *T) tryRelease(p client.Pool, a netip.Addr) error {
	err := t.c.IPAM().ReleaseAddress(t.ctx, p.ID, a)
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.madePool(p.ID); err == nil && m != nil {
		delete(m.out, a)
	}
	return err
}

// releasePool gives a pool back as an engine does, which has given back what was out of it.
func (t *T) releasePool(p client.Pool) {
	t.mu.Lock()
	var out []netip.Addr
	if m := t.madePool(p.ID); m != nil {
		out = slices.SortedFunc(maps.Keys(m.out), netip.Addr.Compare)
	}
	t.mu.Unlock()
	for _, a := range out {
		t.release(p, a)
	}
	t.must("ReleasePool", t.c.IPAM().ReleasePool(t.ctx, p.ID))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools = slices.DeleteFunc(t.pools, func(m *madePool) bool { return m.id == p.ID })
}

// replaced notes that an engine goes on with another ID for a pool.
func (t *T) replaced(old, id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pools = slices.DeleteFunc(t.pools, func(m *madePool) bool { return m.id == old && old != id })
}
