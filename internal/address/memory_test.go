package address

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// memory is the records that one host has. It keeps the store's rules: of two records about one thing the newer stays,
// and of a removed host those that others need.
type memory struct {
	mu       sync.Mutex
	self     record.Host
	at       record.Version
	records  map[record.Key]record.Record
	watchers map[chan struct{}]bool
	changes  uint64
}

func newMemory(self record.Host) *memory {
	return &memory{self: self, at: record.Version{Incarnation: 1}, records: map[record.Key]record.Record{}, watchers: map[chan struct{}]bool{}}
}

func (m *memory) Self() record.Host { return m.self }

func (m *memory) list(want func(record.Record) bool) []record.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []record.Record
	for _, r := range m.records {
		if want(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b record.Record) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Writer.Compare(b.Writer)) })
	return out
}

func (m *memory) removedUpTo() map[record.Host]uint64 {
	upTo := map[record.Host]uint64{}
	for _, r := range m.list(func(r record.Record) bool { return r.Kind == record.KindRemoval && !r.Deleted }) {
		var h record.Host
		var body record.Removal
		if h.UnmarshalText([]byte(r.Name)) == nil && json.Unmarshal(r.Body, &body) == nil {
			upTo[h] = max(upTo[h], body.Incarnation)
		}
	}
	return upTo
}

func (m *memory) Records(kind string) []record.Record {
	upTo := m.removedUpTo()
	return m.list(func(r record.Record) bool {
		return r.Kind == kind && !r.Deleted && (r.Writer == m.self || r.Incarnation > upTo[r.Writer])
	})
}

func (m *memory) Bequeathed(kind string) []record.Record {
	upTo := m.removedUpTo()
	return m.list(func(r record.Record) bool {
		return r.Kind == kind && !r.Deleted && r.Writer != m.self && r.Incarnation <= upTo[r.Writer] &&
			kind != record.KindMember
	})
}

func (m *memory) Put(kind, name string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	k := record.Key{Writer: m.self, Kind: kind, Name: name}
	m.mu.Lock()
	if old, ok := m.records[k]; ok && !old.Deleted && string(old.Body) == string(b) && kind != record.KindMember {
		m.mu.Unlock()
		return nil
	}
	m.at.Counter++
	m.records[k] = record.Record{Key: k, Version: m.at, Body: b}
	m.mu.Unlock()
	m.tell()
	return nil
}

func (m *memory) Delete(kind, name string) error {
	k := record.Key{Writer: m.self, Kind: kind, Name: name}
	m.mu.Lock()
	if old, ok := m.records[k]; ok && !old.Deleted {
		m.at.Counter++
		m.records[k] = record.Record{Key: k, Version: m.at, Deleted: true}
	}
	m.mu.Unlock()
	m.tell()
	return nil
}

func (m *memory) Watch(...string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers[c] = true
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, c)
	}
}

func (m *memory) Changes(...string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

func (m *memory) tell() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	for c := range m.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// merge takes from other what want says, in no order.
func (m *memory) merge(other *memory, want func(record.Record) bool) {
	for _, r := range other.list(want) {
		m.mu.Lock()
		if old, ok := m.records[r.Key]; r.Writer != m.self && (!ok || r.Compare(old.Version) > 0) {
			m.records[r.Key] = r
		}
		m.mu.Unlock()
	}
	m.tell()
}

func everyRecord(record.Record) bool { return true }

func hostNumber(i int) (h record.Host) {
	binary.BigEndian.PutUint32(h[:], uint32(i)*2654435761) // in no order
	binary.BigEndian.PutUint32(h[4:], uint32(i)+1)
	return h
}

// lab is hosts that can or cannot reach each other.
type lab struct {
	t      *testing.T
	rand   *rand.Rand
	hosts  []*labHost
	cutOff map[record.Host]int // who is on which side
}

type labHost struct {
	*Allocator
	lab   *lab
	store *memory
	dir   string
	root  *os.Root
	up    bool
	gone  bool // and removed
}

const labRange = "10.32.0.0/12"

func newLab(t *testing.T, n int) *lab {
	t.Helper()
	l := &lab{t: t, rand: rand.New(rand.NewPCG(1, 2)), cutOff: map[record.Host]int{}}
	l.add()
	must(t, l.hosts[0].store.Put(record.KindRange, "", record.Range{Prefixes: []netip.Prefix{netip.MustParsePrefix(labRange)}}))
	for range n - 1 {
		l.join(l.hosts[0])
	}
	l.gossip()
	return l
}

func (l *lab) add() *labHost {
	h := &labHost{lab: l, store: newMemory(hostNumber(len(l.hosts))), dir: l.t.TempDir()}
	l.hosts = append(l.hosts, h)
	h.start()
	l.t.Cleanup(h.kill)
	return h
}

func (l *lab) join(by *labHost) *labHost {
	h := l.add()
	h.store.merge(by.store, everyRecord)
	by.store.merge(h.store, everyRecord)
	return h
}

func (h *labHost) start() {
	t := h.lab.t
	t.Helper()
	h.store.at.Incarnation++
	number := slices.Index(h.lab.hosts, h)
	must(t, h.store.Put(record.KindMember, "", record.Member{Nickname: fmt.Sprintf("host%d", number), Started: time.Now()}))
	root, err := os.OpenRoot(h.dir)
	must(t, err)
	h.root = root
	h.Allocator, err = New(Config{Root: root, Store: h.store, Asker: h})
	must(t, err)
	h.up = true
}

// kill ends the host as kill -9 does: nothing is written any more.
func (h *labHost) kill() {
	if h.up {
		h.up = false
		_ = h.ledger.close()
		_ = h.root.Close()
	}
}

func (h *labHost) reaches(o *labHost) bool {
	return h.up && o.up && h.lab.cutOff[h.store.self] == h.lab.cutOff[o.store.self]
}

// Ask is what the links between hosts do.
func (h *labHost) Ask(ctx context.Context, host record.Host, r Request) (Answer, error) {
	for _, o := range h.lab.hosts {
		if o.store.self != host {
			continue
		}
		if !h.reaches(o) {
			break
		}
		answer, err := o.Answer(ctx, h.store.self, r)
		if err == nil {
			h.store.merge(o.store, func(r record.Record) bool { return r.Writer == host })
		}
		return answer, err
	}
	return Answer{}, errdefs.Errorf(errdefs.ErrUnavailable, "not reachable")
}

// gossip tells everybody all, as far as they reach each other.
func (l *lab) gossip() {
	for range 2 {
		for _, a := range l.hosts {
			for _, b := range l.hosts {
				if a != b && a.reaches(b) {
					b.store.merge(a.store, everyRecord)
				}
			}
		}
	}
}

func (l *lab) steps() {
	l.t.Helper()
	for _, h := range l.hosts {
		if h.up {
			must(l.t, h.Step(l.t.Context()))
		}
	}
}

func (l *lab) settle() {
	l.t.Helper()
	for range 6 {
		l.gossip()
		l.steps()
	}
}

func (h *labHost) remove(victim *labHost) {
	upTo := h.LastLife(victim.store.self)
	for _, r := range h.store.list(func(r record.Record) bool { return r.Writer == victim.store.self }) {
		upTo = max(upTo, r.Incarnation)
	}
	must(h.lab.t, h.store.Put(record.KindRemoval, victim.store.self.String(), record.Removal{Incarnation: upTo, Nickname: "gone"}))
}

// comeBack is a removed host that hears of its removal, frees what it had and joins anew.
func (h *labHost) comeBack(by *labHost) {
	t := h.lab.t
	t.Helper()
	h.store.merge(by.store, everyRecord)
	h.store.at.Incarnation = max(h.store.at.Incarnation, h.store.removedUpTo()[h.store.self])
	h.gone = false
	h.start()
	for _, a := range h.Addresses() {
		must(t, h.Release(t.Context(), a.Network, a.Address))
	}
	by.store.merge(h.store, everyRecord)
}

func (h *labHost) network(name string) Space {
	h.lab.t.Helper()
	s, err := h.CreateNetwork(h.lab.t.Context(), NewNetwork{Name: name, V4: true})
	must(h.lab.t, err)
	return s
}

func (h *labHost) any(s Space) (netip.Addr, error) {
	p, err := h.Allocate(h.lab.t.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Key: "c"})
	return p.Addr(), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same fails unless all hosts that are up know the same owners.
func (l *lab) same() {
	l.t.Helper()
	var first map[string][]Owned
	for _, h := range l.hosts {
		if !h.up {
			continue
		}
		got := map[string][]Owned{}
		for _, s := range h.Status().Spaces {
			got[s.ID] = s.Owned
		}
		if first == nil {
			first = got
		} else if !maps.EqualFunc(first, got, slices.Equal[[]Owned]) {
			l.t.Errorf("host %s knows %v, another %v", h.store.self.Short(), got, first)
		}
	}
}
