package address

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
)

// none fails unless no host that is up knows a network of the name.
func (l *lab) none(name string) {
	l.t.Helper()
	for i, h := range l.hosts {
		if h.up && slices.ContainsFunc(h.Networks(), func(s Space) bool { return s.Name == name }) {
			l.t.Errorf("host %d still has network %q", i, name)
		}
	}
}

// TestEndByAnother: a member that did not make a network has it removed.
func TestEndByAnother(t *testing.T) { synctest.Test(t, endByAnother) }

func endByAnother(t *testing.T) {
	l := newLab(t, 3)
	maker, user, ender := l.hosts[0], l.hosts[1], l.hosts[2]
	s := maker.network("blue")
	l.gossip()
	at, err := user.any(s)
	must(t, err)
	l.gossip()
	must(t, ender.EndNetwork(t.Context(), "blue"))
	must(t, ender.EndNetwork(t.Context(), "blue"))
	l.settle()
	for what, err := range map[string]error{
		"an address": second(maker.any(s)),
		"a pool":     second(request(t, maker, ipam.PoolRequest{Options: map[string]string{OptionNet: "blue"}})),
		"another":    second(ender.CreateNetwork(t.Context(), NewNetwork{Name: "blue", V4: true})),
	} {
		if !errors.Is(err, errdefs.ErrUnavailable) || len(errdefs.Hints(err)) == 0 {
			t.Errorf("%s of a network that is to go: %v", what, err)
		}
	}
	if n, _ := maker.Find(s.Prefixes[0]); !n.Record().Going {
		t.Error("who made it is not told")
	}
	l.settle()
	if _, ok := user.Find(s.Prefixes[0]); !ok {
		t.Fatal("it is gone while a container has an address")
	}
	must(t, user.Release(t.Context(), s.ID, at))
	l.settle()
	l.none("blue")
	time.Sleep(2 * unknownFor)
	l.settle()
	for i, h := range l.hosts { // what is said of it is forgotten
		for _, kind := range []string{record.KindNetwork, record.KindEnding, record.KindGrant} {
			for _, r := range h.store.Records(kind) {
				if kind != record.KindGrant || strings.HasPrefix(r.Name, s.ID) {
					t.Errorf("host %d: %s %q is left", i, kind, r.Name)
				}
			}
		}
	}
	ender.network("blue") // the name is free
}

func second[T any](_ T, err error) error { return err }

// TestEndOfRemoved: a network whose creator was removed is removed by any other, and its name is free again.
func TestEndOfRemoved(t *testing.T) {
	l := newLab(t, 4)
	maker, heir, user, ender := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	s, other := maker.network("blue"), heir.network("red")
	l.gossip()
	at, err := user.any(s)
	must(t, err)
	must(t, second(maker.any(other)))
	l.gossip()
	maker.kill()
	heir.remove(maker)
	must(t, ender.EndNetwork(t.Context(), "blue")) // before the others know what the maker gave away
	l.settle()
	must(t, user.Release(t.Context(), s.ID, at))
	l.settle()
	l.none("blue")
	again := user.network("blue")
	l.settle()
	for _, h := range []*labHost{heir, user} {
		if n, ok := h.Find(again.Prefixes[0]); !ok || n.ID != again.ID {
			t.Errorf("network %v in the place of the new one", n)
		}
		for _, n := range []Space{again, other} {
			if _, err := h.any(n); err != nil {
				t.Error(err)
			}
		}
	}
	// A network of which something was taken over goes too, and what was taken stays settled though not all hosts are there.
	l.gossip()
	l.cutOff[ender.store.self] = 1
	for _, h := range []*labHost{heir, user} {
		for _, a := range h.Addresses() {
			must(t, h.Release(t.Context(), a.Network, a.Address))
		}
	}
	must(t, user.EndNetwork(t.Context(), "red"))
	l.settle()
	clear(l.cutOff)
	if st := user.Status(); len(st.Takeovers) > 0 {
		t.Errorf("takeovers begin again: %+v", st.Takeovers)
	}
	l.settle()
	l.none("red")
	// A host that was away all the time brings the old record; it stays buried.
	maker.start()
	heir.store.merge(maker.store, everyRecord)
	l.settle()
	if n, ok := heir.Find(s.Prefixes[0]); ok && n.ID == s.ID {
		t.Error("the network is there again")
	}
}

// TestEndOfLeft: the creator has left the cluster in good order, and nobody has what it owned by right.
func TestEndOfLeft(t *testing.T) {
	l := newLab(t, 3)
	maker, one, two := l.hosts[0], l.hosts[1], l.hosts[2]
	s := maker.network("blue")
	l.gossip()
	at, err := one.any(s)
	must(t, err)
	l.gossip()
	must(t, maker.GiveAll(two.store.Self()))
	must(t, maker.store.Delete(record.KindMember, ""))
	l.gossip()
	maker.kill()
	must(t, one.EndNetwork(t.Context(), "blue"))
	l.settle()
	if _, ok := two.Find(s.Prefixes[0]); !ok {
		t.Fatal("it is gone while a container has an address")
	}
	must(t, one.Release(t.Context(), s.ID, at))
	l.settle()
	l.none("blue")
}

// TestEndWhileApart: both sides of a cut end a network; the one that uses it keeps it until it is done.
func TestEndWhileApart(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	s := a.network("blue")
	l.gossip()
	l.cutOff[b.store.self] = 1
	at, err := a.any(s)
	must(t, err)
	must(t, b.EndNetwork(t.Context(), "blue"))
	l.settle()
	clear(l.cutOff)
	l.settle()
	if n, ok := a.Find(s.Prefixes[0]); !ok || !n.Record().Going {
		t.Fatalf("network %v", n)
	}
	if out := a.Addresses(); len(out) != 1 || out[0].Address != at {
		t.Errorf("out: %v", out)
	}
	must(t, a.Release(t.Context(), s.ID, at))
	l.settle()
	l.none("blue")
	if owned := a.Owned(s.ID); len(owned) > 0 {
		t.Errorf("%v", owned)
	}
}
