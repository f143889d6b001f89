package address

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net/netip"
	"os"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/cluster/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// real is a host with the store that hosts have.
type real struct {
	*Allocator
	store *store.Store
	all   *[]*real
	down  bool
}

func (r *real) Ask(ctx context.Context, host record.Host, q Request) (Answer, error) {
	for _, o := range *r.all {
		if o.store.Self() == host && !o.down {
			answer, err := o.Answer(ctx, r.store.Self(), q)
			r.hear(o)
			return answer, err
		}
	}
	return Answer{}, errdefs.Errorf(errdefs.ErrUnavailable, "not reachable")
}

func (r *real) hear(o *real) {
	if records, err := o.store.Missing(r.store.Digest()); err == nil {
		r.store.Merge(records)
	}
}

// TestRealStore: with the store that hosts have, a network outlives the host that made it, and what that owned is taken over.
func TestRealStore(t *testing.T) {
	var all []*real
	for i := range 3 {
		h := &real{all: &all}
		root, err := os.OpenRoot(t.TempDir())
		must(t, err)
		own, err := os.OpenRoot(t.TempDir())
		must(t, err)
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize))
		h.store, err = store.Open(root, record.Cluster{1}, key, store.Options{})
		must(t, err)
		must(t, h.store.Put(record.KindMember, "", record.Member{Nickname: string(rune('a' + i))}))
		h.Allocator, err = New(Config{Root: own, Store: h.store, Asker: h})
		must(t, err)
		all = append(all, h)
		t.Cleanup(func() {
			_ = h.Close()
			h.store.Close()
			_, _ = root.Close(), own.Close()
		})
	}
	tell := func() {
		for range 2 {
			for _, a := range all {
				for _, b := range all {
					if !a.down && !b.down {
						a.hear(b)
					}
				}
			}
		}
	}
	a, b, c := all[0], all[1], all[2]
	must(t, a.store.Put(record.KindRange, "", record.Range{Prefixes: []netip.Prefix{pfx(labRange)}}))
	s, err := a.CreateNetwork(t.Context(), NewNetwork{Name: "blue", V4: true})
	must(t, err)
	tell()
	want := Want{Space: s.ID, Subnet: s.Prefixes[0], Key: "c"}
	first, err := b.Allocate(t.Context(), want)
	must(t, err)
	tell()
	a.down = true
	must(t, b.store.Put(record.KindRemoval, a.store.Self().String(), record.Removal{Incarnation: a.store.Incarnation(), Nickname: "a"}))
	for range 4 {
		tell()
		must(t, b.Step(t.Context()))
		must(t, c.Step(t.Context()))
	}
	for _, h := range []*real{b, c} {
		if got, ok := h.Find(s.Prefixes[0]); !ok || got.ID != s.ID {
			t.Fatalf("network %v in the place of %v", got, s)
		}
		got, err := h.Allocate(t.Context(), want)
		if err != nil || got == first {
			t.Errorf("%s, %v", got, err)
		}
		for _, o := range append(h.Owned(s.ID), h.Owned(clusterRange)...) {
			if o.Owner == a.store.Self() {
				t.Errorf("%s is still owned by the host that was removed", o.Prefix)
			}
		}
		if _, err := h.CreateNetwork(t.Context(), NewNetwork{V4: true}); err != nil {
			t.Error(err)
		}
		tell()
	}
}
