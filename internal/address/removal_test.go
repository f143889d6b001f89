package address

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func ofKind(kinds ...string) func(record.Record) bool {
	return func(r record.Record) bool { return slices.Contains(kinds, r.Kind) }
}

func notGrants(r record.Record) bool { return r.Kind != record.KindGrant }

// owns returns what h owns of s, as it knows itself.
func (h *labHost) owns(s Space) (out []netip.Prefix) {
	for _, o := range h.Owned(s.ID) {
		if o.Owner == h.store.self {
			out = append(out, o.Prefix)
		}
	}
	return out
}

func TestTakeover(t *testing.T) {
	l := newLab(t, 4)
	maker, taker, third, late := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	s := maker.network("blue")
	l.gossip()
	// Cut off from the others, the maker gives something to the third; then it is gone.
	l.cutOff[taker.store.self], l.cutOff[late.store.self] = 1, 1
	got, err := third.any(s)
	must(t, err)
	maker.kill()
	taker.remove(maker)
	must(t, taker.Step(t.Context()))
	if st := taker.Status().Takeovers; len(st) != 1 || !slices.Equal(st[0].Waits, []string{"host2", "host3"}) {
		t.Errorf("takeovers: %+v", st)
	}
	clear(l.cutOff)

	// The others say what they know. What they know is not here yet.
	for _, h := range []*labHost{third, late} {
		h.store.merge(taker.store, everyRecord)
		must(t, h.Step(t.Context()))
	}
	taker.store.merge(third.store, notGrants)
	taker.store.merge(late.store, notGrants)
	must(t, taker.Step(t.Context()))
	if own := taker.owns(s); own != nil {
		t.Fatalf("it takes %s before it knows what was given away", own)
	}
	l.settle()
	if own := taker.owns(s); len(own) == 0 || within(own, got) {
		t.Errorf("it took %s, and %s is another's", own, got)
	}
	for _, h := range []*labHost{taker, third, late} {
		if _, err := h.any(s); err != nil {
			t.Error(err)
		}
		if st := h.Status(); len(st.Takeovers) > 0 {
			t.Errorf("takeovers: %+v", st.Takeovers)
		}
	}
	l.gossip()
	l.same()
}

// TestRemovedByTwo: one takes over, however the two come to know of each other.
func TestRemovedByTwo(t *testing.T) {
	l := newLab(t, 3)
	s := l.hosts[0].network("blue")
	l.gossip()
	l.hosts[0].kill()
	a, b := l.hosts[1], l.hosts[2]
	l.cutOff[a.store.self] = 1
	for _, h := range []*labHost{a, b} {
		h.remove(l.hosts[0])
		must(t, h.Step(t.Context()))
		if _, err := h.any(s); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("one alone has an address: %v", err)
		}
	}
	clear(l.cutOff)
	// Each hears what the other says, but not of its removal.
	a.store.merge(b.store, ofKind(record.KindSettled))
	b.store.merge(a.store, ofKind(record.KindSettled))
	l.steps()
	if a.owns(s) != nil || b.owns(s) != nil {
		t.Fatalf("they take %s and %s", a.owns(s), b.owns(s))
	}
	l.settle()
	if x, y := len(a.owns(s)) > 0, len(b.owns(s)) > 0; x == y {
		t.Errorf("they own %s and %s", a.owns(s), b.owns(s))
	}
	l.same()
}

// TestRemoverIsRemoved: who removed the remover takes over in its place.
func TestRemoverIsRemoved(t *testing.T) {
	l := newLab(t, 4)
	s := l.hosts[0].network("blue")
	l.gossip()
	l.hosts[0].kill()
	l.hosts[1].remove(l.hosts[0])
	l.gossip()
	l.hosts[1].kill()
	l.settle()
	if st := l.hosts[2].Status().Takeovers; len(st) != 1 || st[0].By != "host1" {
		t.Errorf("takeovers: %+v", st)
	}
	l.hosts[3].remove(l.hosts[1])
	l.settle()
	if own := l.hosts[3].owns(s); !slices.Equal(own, s.Prefixes) {
		t.Errorf("it took %s", own)
	}
	if _, err := l.hosts[2].any(s); err != nil {
		t.Error(err)
	}
}

// TestComesToLight: a grant by a removed host that nobody alive knew of when they said what they know is not used.
func TestComesToLight(t *testing.T) {
	l := newLab(t, 4)
	maker, taker, donor, last := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	s := maker.network("blue")
	l.gossip()
	_, err := donor.any(s) // it owns a half, of which only the maker and it know
	must(t, err)
	// The last gets a part of that, and hears of it, but not how the donor got it.
	v := look(donor.store, nil)
	answer, err := donor.Answer(t.Context(), last.store.self, Request{Space: s.ID, Subnet: s.Prefixes[0], Life: v.members[last.store.self].life})
	must(t, err)
	donor.kill()
	maker.kill()
	last.store.merge(donor.store, func(r record.Record) bool { return r.Writer == donor.store.self })
	taker.remove(maker)
	taker.remove(donor)
	for range 3 {
		last.store.merge(taker.store, notGrants)
		must(t, last.Step(t.Context()))
	}
	last.store.merge(maker.store, ofKind(record.KindGrant)) // a disk is found
	if own := last.owns(s); !slices.Equal(own, []netip.Prefix{answer.Prefix}) {
		t.Fatalf("it owns %s", own)
	}
	for range 2 {
		if got, err := last.any(s); err == nil {
			t.Fatalf("it uses %s before the taker knows", got)
		}
		must(t, last.Step(t.Context()))
	}
	l.settle() // now it does
	if _, err := last.any(s); err != nil {
		t.Error(err)
	}
	if own := taker.owns(s); len(common(own, []netip.Prefix{answer.Prefix})) > 0 {
		t.Errorf("it took %s, and %s is another's", own, answer.Prefix)
	}
}

// TestRemovedHostComesBack: it may not use what it owned before, from the moment that it hears.
func TestRemovedHostComesBack(t *testing.T) {
	l := newLab(t, 3)
	a, b, c := l.hosts[0], l.hosts[1], l.hosts[2]
	s := a.network("blue")
	at, err := a.any(s)
	must(t, err)
	l.gossip()
	a.kill()
	b.remove(a)
	a.start()
	a.store.merge(b.store, everyRecord)
	// It was up again before its remover knew: that is a life of which the removal says nothing.
	if _, err := a.any(s); err == nil {
		t.Error("it gives out what it owned before it was removed")
	}
	if out := a.Addresses(); len(out) != 1 || out[0].Address != at {
		t.Errorf("out: %v", out) // until its container is gone
	}
	must(t, a.Release(t.Context(), s.ID, at))
	l.settle()
	for _, h := range []*labHost{a, b, c} {
		if _, err := h.any(s); err != nil {
			t.Errorf("host %s: %v", h, err)
		}
	}
	l.gossip()
	l.same()
}

// TestNetworkOfTheDead: a host makes a network of which nobody hears, and is removed; its subnet is another network's by the time it
// is back. That one stays as it is.
func TestNetworkOfTheDead(t *testing.T) {
	l := newLab(t, 3)
	maker, taker := l.hosts[0], l.hosts[1]
	l.cutOff[maker.store.self] = 1
	dead, err := maker.CreateNetwork(t.Context(), NewNetwork{V4: true})
	must(t, err)
	maker.kill()
	taker.remove(maker)
	l.settle()
	s, err := taker.CreateNetwork(t.Context(), NewNetwork{V4: true})
	must(t, err)
	if !slices.Equal(s.Prefixes, dead.Prefixes) {
		t.Fatalf("%s and %s: the test needs the same subnet twice", s.Prefixes, dead.Prefixes)
	}
	out, err := taker.any(s)
	must(t, err)
	maker.comeBack(taker)
	clear(l.cutOff)
	l.settle()
	for i, h := range l.hosts {
		if got := h.Networks(); len(got) != 1 || got[0].ID != s.ID {
			t.Fatalf("host %d: networks %v, not %v", i, got, s)
		}
		if at, err := h.any(s); err != nil || at == out {
			t.Errorf("host %d: %s, %v", i, at, err)
		}
	}
	l.gossip()
	l.same()
	if r, ok := maker.store.records[record.Key{Writer: maker.store.self, Kind: record.KindNetwork, Name: dead.Name}]; !ok || !r.Deleted {
		t.Errorf("the host that is back keeps its record of %s", dead.Prefixes)
	}
}
