// Package store holds on each host what all hosts of its cluster have written: in memory for those who
// read, and on the disk. A host's own records are on the disk before [Store.Put] returns; those of others,
// which others have too, follow a moment later.
//
// Of each thing the newest record counts, in whatever order they arrive ([Store.Merge]). What is wrong with
// a record is counted and told by [Store.Status]; it is never an error of who brought it. Package cluster
// carries the records between hosts.
package store

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// tombstoneAge is how long a record that says that something is deleted is kept. A host that was away
// for longer may bring back what it did not hear of; the writer then deletes it again.
const tombstoneAge = 24 * time.Hour

// lag is how long others' records may be in memory alone.
const lag = time.Second

// Limits bound what others can make a host hold. Zero values are the defaults.
type Limits struct {
	Records int // of one writer; 8192
	Bytes   int // of one writer, as encoded; 4 MiB
	Writers int // 4096
	Total   int // bytes of all writers; 128 MiB
}

// Options of a store.
type Options struct {
	Limits Limits
	Log    *slog.Logger // none is silent
	// Spread is given every record that is new here, this host's own and those that came by Merge. It
	// must not call the store, nor wait.
	Spread func([]record.Record)
	// Now is the clock on the wall, which may be wrong and jump; time.Now if nil.
	Now func() time.Time
}

// Store is the records of a cluster on one host. Its methods may be called at the same time.
type Store struct {
	cluster record.Cluster
	self    record.Host
	key     ed25519.PrivateKey
	root    *os.Root
	limits  Limits
	now     func() time.Time
	log     *slog.Logger
	spread  func([]record.Record)

	// ownMu is held by who writes a record of this host, over the disk; taken before mu.
	ownMu sync.Mutex
	own   *logFile
	meta  meta
	at    record.Version // of the last record that this host wrote
	found record.Version // of the last that was on the disk when it was opened
	twin  twin

	// othersMu is held by who writes others.log; taken before mu.
	othersMu sync.Mutex
	others   *logFile

	mu       sync.RWMutex
	writers  map[record.Host]*writer
	kinds    map[string]map[record.Key]*held
	removals map[record.Host]uint64 // the incarnation up to which a host is removed
	total    int
	graves   int             // tombstones held
	unsaved  []record.Record // not in others.log yet
	digest   []byte          // cached
	root64   uint64          // of digest; 0 is not known
	watchers map[*watcher]bool
	changes  map[string]uint64 // by the kind
	status   Status
	timer    *time.Timer // of the next save
	sweeper  *time.Timer // of the next look for old tombstones
	closed   bool
}

// writer is what is held of one host.
type writer struct {
	records map[record.Key]*held
	bytes   int
	hash    uint64 // of the living ones
}

type held struct {
	record.Record
	since time.Time // when it came
}

// Open reads what was stored below root, or begins anew, and starts a new incarnation of the host with
// the key. What on the disk is damaged is left out and told by Status. The root stays the caller's.
func Open(root *os.Root, cluster record.Cluster, key ed25519.PrivateKey, o Options) (*Store, error) {
	s := &Store{
		cluster: cluster, key: key, root: root, limits: o.Limits.withDefaults(), log: o.Log, spread: o.Spread, now: o.Now,
		writers: map[record.Host]*writer{}, kinds: map[string]map[record.Key]*held{}, removals: map[record.Host]uint64{},
		watchers: map[*watcher]bool{}, changes: map[string]uint64{},
	}
	copy(s.self[:], key.Public().(ed25519.PublicKey))
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.spread == nil {
		s.spread = func([]record.Record) {}
	}
	if err := state.Clean(root, "."); err != nil {
		return nil, err
	}
	m, lost, err := readMeta(root, cluster, s.self)
	if err != nil {
		return nil, err
	}
	s.meta = m
	if lost {
		s.damaged("%s: damaged, and begun anew", metaName)
	}
	if err := s.load(lost); err != nil {
		return nil, err
	}
	if err := s.incarnate(s.at.Incarnation+1, gap{}); err != nil {
		s.Close()
		return nil, err
	}
	s.mu.Lock()
	s.sweep()
	s.mu.Unlock()
	return s, nil
}

// load reads both logs.
func (s *Store) load(lost bool) (err error) {
	now, strange := s.now(), 0
	s.at.Incarnation = s.meta.Incarnation
	var d damage
	s.own, d, err = openLog(s.root, ownName, func(r record.Record) {
		if r.Writer != s.self || r.Cluster != s.cluster || !r.Verify() {
			strange++
			return
		}
		if r.Compare(s.at) > 0 {
			s.at = r.Version
		}
		s.install(r, earlier(now, r.Written))
	})
	if err != nil {
		return err
	}
	s.found = s.at
	if strange > 0 || d.lost > 0 {
		s.damaged("%s: %v; %d records have no good signature", ownName, d, strange)
		lost, s.own.broken = true, true
	}
	if lost {
		s.meta.Gap = s.meta.Gap.with(gap{Below: s.at.Incarnation + 1})
	}
	s.others, d, err = openLog(s.root, othersName, func(r record.Record) {
		if r.Writer == s.self || r.Cluster != s.cluster {
			return
		}
		s.install(r, earlier(now, r.Written))
	})
	if err != nil {
		s.own.close()
		return err
	}
	if d.lost > 0 {
		s.damaged("%s: %v; the other hosts have them", othersName, d)
	}
	s.unsaved = nil
	return nil
}

// earlier keeps a clock that was wrong when a record was written from keeping the record for ever.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (s *Store) damaged(format string, args ...any) {
	err := errdefs.Errorf(errdefs.ErrUnavailable, "store: "+format, args...)
	s.log.Error("records on the disk are damaged", "err", err)
	s.status.Damage = append(s.status.Damage, err.Error())
}

// Close writes what is not on the disk yet. Nothing may be called after it.
func (s *Store) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	for _, t := range []*time.Timer{s.timer, s.sweeper} {
		if t != nil {
			t.Stop()
		}
	}
	s.mu.Unlock()
	s.save()
	s.ownMu.Lock()
	defer s.ownMu.Unlock()
	s.othersMu.Lock()
	defer s.othersMu.Unlock()
	s.own.close()
	s.others.close()
}

// Self is the host whose store this is.
func (s *Store) Self() record.Host { return s.self }

// Cluster is the cluster whose records these are.
func (s *Store) Cluster() record.Cluster { return s.cluster }

// Incarnation is the one in which this host writes.
func (s *Store) Incarnation() uint64 {
	s.ownMu.Lock()
	defer s.ownMu.Unlock()
	return s.at.Incarnation
}

// Records returns the living records of a kind, by name and then by writer. Those of hosts that were removed
// are not among them, but for what they themselves removed and for the networks that they made.
func (s *Store) Records(kind string) []record.Record {
	return s.list(kind, func(h *held) bool { return everybodys(kind) || !s.isRemoved(&h.Record) })
}

// Bequeathed returns the living records of a kind by hosts that were removed since. All but those on which others'
// addresses hang are forgotten.
func (s *Store) Bequeathed(kind string) []record.Record {
	return s.list(kind, func(h *held) bool { return s.isRemoved(&h.Record) })
}

func (s *Store) list(kind string, want func(*held) bool) []record.Record {
	s.mu.RLock()
	found := make([]record.Record, 0, len(s.kinds[kind]))
	for _, h := range s.kinds[kind] {
		if !h.Deleted && want(h) {
			found = append(found, h.Record)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(found, func(a, b record.Record) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), bytes.Compare(a.Writer[:], b.Writer[:]))
	})
	return found
}

// Get returns one living record, and false if there is none.
func (s *Store) Get(k record.Key) (record.Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.kinds[k.Kind][k]
	if h == nil || h.Deleted || !everybodys(k.Kind) && s.isRemoved(&h.Record) {
		return record.Record{}, false
	}
	return h.Record, true
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Records: cmp.Or(l.Records, 8192), Bytes: cmp.Or(l.Bytes, 4<<20),
		Writers: cmp.Or(l.Writers, 4096), Total: cmp.Or(l.Total, 128<<20),
	}
}
