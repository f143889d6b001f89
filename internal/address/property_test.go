package address

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

var seeds = flag.Int("seeds", 8, "number of random lives of a cluster")

// life is what really happens in a cluster, as nobody in it knows.
type life struct {
	*lab
	out   map[netip.Addr]*labHost // who has what, in whatever network
	freed map[spot]time.Time
	did   map[string]int
	log   []string
}

// TestNoAddressTwice lives through cuts, crashes, joins, removals by one host or by two at once, hosts that come back, networks and
// containers that come and go, with records that arrive in any order or not at all, and looks at each
// address that is given out.
func TestNoAddressTwice(t *testing.T) {
	total, lives, acts := map[string]int{}, *seeds, 600
	if testing.Short() {
		lives, acts = min(lives, 3), 150
	}
	for seed := range lives {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &life{lab: newLab(t, 3), out: map[netip.Addr]*labHost{}, freed: map[spot]time.Time{}, did: map[string]int{}}
				l.rand = rand.New(rand.NewPCG(uint64(seed), 7))
				defer func() {
					if t.Failed() {
						for _, line := range l.log[max(0, len(l.log)-60):] {
							t.Log(line)
						}
					}
				}()
				for range acts {
					if l.act(); t.Failed() {
						return
					}
				}
				l.heal()
				for what, n := range l.did {
					total[what] += n
				}
			})
		})
	}
	t.Log(total)
	for _, what := range []string{"allocated", "released", "cut", "crashed", "joined", "removed", "removed by two", "came back", "network", "left", "named"} {
		if total[what] == 0 && lives > 5 {
			t.Errorf("nothing was ever %s", what)
		}
	}
}

func (l *life) note(what, format string, args ...any) {
	l.did[what]++
	l.log = append(l.log, fmt.Sprintf("%s %s: %s", time.Now().Format("15:04:05"), what, fmt.Sprintf(format, args...)))
}

func (l *life) pick(want func(*labHost) bool) *labHost {
	var some []*labHost
	for _, h := range l.hosts {
		if want(h) {
			some = append(some, h)
		}
	}
	if some == nil {
		return nil
	}
	return some[l.rand.IntN(len(some))]
}

func isUp(h *labHost) bool { return h.up }

func (h *labHost) String() string { return fmt.Sprint(slices.Index(h.lab.hosts, h)) }

func (l *life) act() {
	h := l.pick(isUp)
	time.Sleep(time.Duration(l.rand.IntN(20)) * time.Second)
	switch n := l.rand.IntN(100); {
	case h == nil:
		l.restart()
	case n < 40:
		l.allocate(h)
	case n < 52:
		l.release(h)
	case n < 70:
		l.talk(h)
	case n < 80:
		must(l.t, h.Step(l.t.Context()))
	case n < 83:
		l.cut()
	case n < 86:
		l.crash(h)
	case n < 91:
		l.restart()
	case n < 93:
		l.letIn(h)
	case n < 95:
		l.removeOne()
	case n < 97:
		l.makeNetwork(h)
	case n < 98:
		l.leave(h)
	default:
		l.gossip()
	}
}

func (l *life) allocate(h *labHost) {
	networks := h.Networks()
	if len(networks) == 0 {
		return
	}
	s := networks[l.rand.IntN(len(networks))]
	w := Want{Space: s.ID, Subnet: s.Prefixes[0], Key: "c"}
	if l.rand.IntN(6) == 0 {
		b := w.Subnet.Addr().As4()
		b[2], b[3] = byte(l.rand.IntN(256)), byte(l.rand.IntN(256))
		w.Address = netip.AddrFrom4(b)
	}
	p, err := h.Allocate(l.t.Context(), w)
	if err != nil {
		if errdefs.Class(err) == nil {
			l.t.Errorf("host %s: %v", h, err)
		}
		l.note("refused", "%s: %v", h, err)
		return
	}
	l.note("allocated", "%s %s", h, p)
	if w.Address.IsValid() {
		l.did["named"]++
	}
	if other := l.out[p.Addr()]; other != nil {
		l.t.Errorf("address %s was given out by host %s, and by %s", p, other, h)
	}
	if at, ok := l.freed[spot{s.ID, p.Addr()}]; ok && !w.Address.IsValid() && time.Since(at) < Rest {
		l.t.Errorf("address %s of host %s was freed %s ago", p, h, time.Since(at))
	}
	l.out[p.Addr()] = h
}

func (l *life) release(h *labHost) {
	out := h.Addresses()
	if len(out) == 0 {
		return
	}
	a := out[l.rand.IntN(len(out))]
	must(l.t, h.Release(l.t.Context(), a.Network, a.Address))
	delete(l.out, a.Address)
	l.freed[spot{a.Network, a.Address}] = time.Now()
	l.note("released", "%s %s", h, a.Address)
}

// talk brings some records from one host to another.
func (l *life) talk(h *labHost) {
	if o := l.pick(func(o *labHost) bool { return o != h && h.reaches(o) }); o != nil {
		h.store.merge(o.store, func(record.Record) bool { return l.rand.IntN(3) > 0 })
	}
}

func (l *life) cut() {
	sides := 1 + l.rand.IntN(3)
	for _, h := range l.hosts {
		l.cutOff[h.store.self] = l.rand.IntN(sides)
	}
	l.note("cut", "%d sides", sides)
}

func (l *life) crash(h *labHost) {
	h.kill()
	l.note("crashed", "%s", h)
}

func (l *life) restart() {
	h := l.pick(func(h *labHost) bool { return !h.up && !h.gone })
	if h == nil {
		return
	}
	before := h.ledgerSize()
	h.start()
	if n := len(h.Addresses()); n != before {
		l.t.Errorf("host %s: %d addresses after a restart, %d before", h, n, before)
	}
}

// ledgerSize is how many addresses the host has out, as all know.
func (h *labHost) ledgerSize() int { return len(h.used) }

func (l *life) letIn(by *labHost) {
	if len(l.hosts) >= 12 {
		return
	}
	h := l.join(by)
	l.cutOff[h.store.self] = l.cutOff[by.store.self]
	l.note("joined", "%s by %s", h, by)
}

// removeOne is what a person does: sure that the host is gone for good, and on one that knows all the others.
func (l *life) removeOne() {
	if back := l.pick(func(h *labHost) bool { return h.gone }); back != nil && l.rand.IntN(3) == 0 {
		l.comeBack(back)
		return
	}
	victim := l.pick(func(h *labHost) bool { return !h.up && !h.gone })
	knows := func(h *labHost) bool {
		if !h.up {
			return false
		}
		upTo := h.store.removedUpTo()
		for _, o := range l.hosts {
			r, ok := h.store.records[record.Key{Writer: o.store.self, Kind: record.KindMember}]
			if o != victim && !o.gone && !ok || ok && o == victim && r.Incarnation <= upTo[o.store.self] {
				return false
			}
		}
		return true
	}
	if victim == nil {
		return
	}
	first := l.pick(knows)
	if first == nil {
		return
	}
	first.remove(victim)
	victim.gone = true
	l.note("removed", "%s by %s", victim, first)
	if second := l.pick(func(h *labHost) bool { return h != first && knows(h) && !h.reaches(first) }); second != nil {
		second.remove(victim)
		l.note("removed by two", "%s by %s", victim, second)
	}
	for at, h := range l.out {
		if h == victim {
			delete(l.out, at)
		}
	}
}

func (l *life) comeBack(h *labHost) {
	by := l.pick(func(o *labHost) bool { return o.up && o.store.removedUpTo()[h.store.self] > 0 })
	if by == nil {
		return
	}
	h.comeBack(by)
	l.cutOff[h.store.self] = l.cutOff[by.store.self]
	l.note("came back", "%s to %s", h, by)
}

func (l *life) makeNetwork(h *labHost) {
	if len(h.Networks()) > 6 {
		return
	}
	s, err := h.CreateNetwork(l.t.Context(), NewNetwork{V4: true, Network: record.Network{Engine: l.rand.IntN(2) == 0}})
	if err != nil {
		if !errors.Is(err, errdefs.ErrUnavailable) && !errors.Is(err, errdefs.ErrDenied) && !errors.Is(err, errdefs.ErrExists) {
			l.t.Errorf("network on host %s: %v", h, err)
		}
		l.note("no network", "%s: %v", h, err)
		return
	}
	l.note("network", "%s %s", h, s.Prefixes)
	for at := range l.freed { // of a network before this one
		if s.Prefixes[0].Contains(at.address) {
			delete(l.freed, at)
		}
	}
}

func (l *life) leave(h *labHost) {
	networks := h.Networks()
	if len(networks) == 0 {
		return
	}
	s := networks[l.rand.IntN(len(networks))]
	for _, a := range h.Addresses() {
		if a.Network == s.ID {
			delete(l.out, a.Address)
			l.freed[spot{s.ID, a.Address}] = time.Now()
		}
	}
	must(l.t, h.Leave(l.t.Context(), s.ID, s.Prefixes[0]))
	l.note("left", "%s %s", h, s.Prefixes)
}

// removeAgain removes hosts that had been up once more since their remover heard of them.
func (l *life) removeAgain() {
	h := l.pick(isUp)
	upTo := h.store.removedUpTo()
	for _, o := range l.hosts {
		r, ok := h.store.records[record.Key{Writer: o.store.self, Kind: record.KindMember}]
		if o.gone && (ok && r.Incarnation > upTo[o.store.self] || h.LastLife(o.store.self) > upTo[o.store.self]) {
			h.remove(o)
			l.did["removed again"]++
		}
	}
}

// heal ends all trouble: then all hosts agree, nothing waits, and each can give out addresses.
func (l *life) heal() {
	for _, h := range l.hosts {
		l.cutOff[h.store.self] = 0
		if !h.up && !h.gone {
			h.start()
		}
	}
	for range 4 {
		l.settle()
		time.Sleep(time.Minute)
		l.removeAgain()
	}
	l.settle()
	l.same()
	for _, h := range l.hosts {
		if !h.up {
			continue
		}
		if st := h.Status(); len(st.Takeovers) > 0 {
			l.t.Errorf("host %s: it still waits: %+v", h, st.Takeovers)
		}
		for _, s := range h.Networks() {
			for _, o := range h.Owned(s.ID) {
				if i := slices.IndexFunc(l.hosts, func(h *labHost) bool { return h.store.self == o.Owner }); l.hosts[i].gone {
					l.t.Errorf("host %s: %s is still owned by host %s, which is gone", h, o.Prefix, l.hosts[i])
				}
			}
		}
		for range 10 {
			l.allocate(h)
		}
	}
}
