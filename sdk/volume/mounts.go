package volume

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// mounts is who has mounted what: the ledger's living records, and what is known of
// them that a restart may forget. The records of one volume are changed under that
// volume's lock, and read by anyone.
type mounts struct {
	ledger *ledger

	mu     sync.RWMutex
	table  map[string]*mounted
	closed bool // no lingering any more
}

// mounted is the record of one volume. It is replaced, never changed.
type mounted struct {
	record
	// stale holds the mount IDs from before a restart of the engine or of this process:
	// their Unmount may never come.
	stale map[string]bool
	// linger is the pending unmount of a volume that nobody uses.
	linger *time.Timer
	// unwritten tells that the ledger has not heard of this record yet.
	unwritten bool
}

func newMounts(l *ledger) *mounts {
	m := &mounts{ledger: l, table: map[string]*mounted{}}
	for _, r := range l.all() {
		m.table[r.Volume] = &mounted{record: r}
	}
	m.expire()
	return m
}

// none is what is known of a volume that is not mounted.
var none = &mounted{}

func (m *mounts) get(name string) *mounted {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r, ok := m.table[name]; ok {
		return r
	}
	return none
}

// set writes r to the ledger, and then here. A pending unmount is called off.
func (m *mounts) set(r *mounted) error {
	if err := m.ledger.set(r.record); err != nil {
		return err
	}
	m.put(r)
	return nil
}

// settle is set for what has happened already, be the ledger written or not: an engine
// does not repeat an Unmount that failed, and the mount that it took back would count for
// ever. What could not be written, Reconcile writes later; a process that dies before that
// leaves a count too many, as a killed engine does.
func (m *mounts) settle(r *mounted) error {
	err := m.ledger.set(r.record)
	r.unwritten = err != nil
	m.put(r)
	return err
}

func (m *mounts) put(r *mounted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.table[r.Volume]; ok {
		if old.linger != nil {
			old.linger.Stop()
		}
		// What went stale while r was made, and is the same in it, is stale in r too.
		for id := range old.stale {
			if r.Refs[id] == old.Refs[id] && !r.stale[id] {
				r.stale = maps.Clone(r.stale)
				if r.stale == nil {
					r.stale = map[string]bool{}
				}
				r.stale[id] = true
			}
		}
	}
	if r.Mountpoint == "" && len(r.Refs) == 0 && !r.unwritten {
		delete(m.table, r.Volume)
	} else {
		m.table[r.Volume] = r
	}
}

// names returns the volumes that are mounted, and those of which the ledger still says so.
func (m *mounts) names() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Keys(m.table))
}

// podmanID is the one mount ID that Podman has for all its containers, the SHA-256 of
// "placeholder\n" (podman libpod/define: VolumeDriverID). It counts by itself.
const podmanID = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"

// perContainer tells whether id is one that an engine makes for each start of a
// container, and may leave behind. Any other was thought out by somebody who will come
// back with it. Podman's is among these: where its own count says that the volume is
// mounted it does not ask for it again, so to forget the mount would give its next
// container a directory on which nothing is mounted. A mount whose answer Podman did not
// live to hear is left until somebody takes it back.
func perContainer(id string) bool {
	return len(id) == 64 && id != podmanID && strings.Trim(id, "0123456789abcdef") == ""
}

// expire makes every mount ID stale that an engine may have left behind.
func (m *mounts) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, r := range m.table {
		stale := make(map[string]bool, len(r.Refs))
		for id := range r.Refs {
			if perContainer(id) {
				stale[id] = true
			}
		}
		c := *r
		c.stale = stale
		m.table[name] = &c
	}
}

// lingered tells whether the volume's time of lingering is over, and nobody stopped it.
func (m *mounts) lingered(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.table[name]
	if !ok || m.closed {
		return false
	}
	c := *r
	c.linger = nil
	m.table[name] = &c
	return true
}

func (m *mounts) stopLingering() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, r := range m.table {
		if r.linger != nil {
			r.linger.Stop()
		}
	}
}

// total returns how many mounts there are, over all mount IDs.
func (r *mounted) total() int {
	n := 0
	for _, ref := range r.Refs {
		n += ref.Count
	}
	return n
}

// inUse says that somebody has the volume mounted, and what can be done about it; nil
// where nobody has.
func (r *mounted) inUse() error {
	n := r.total()
	if n == 0 {
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrInUse, "mounted %d times", n)
	if len(r.stale) == len(r.Refs) {
		err = errdefs.Hint(err, "what a restart left mounted is forgotten when no container has it for some seconds; "+
			"where that cannot be seen, take it back by an Unmount with its ID")
	}
	for _, ref := range r.list() {
		if !perContainer(ref.ID) {
			err = errdefs.Hint(err, fmt.Sprintf("where no container has it, take back the mount by an Unmount with the ID %q", ref.ID))
		}
	}
	return errdefs.Hint(err, "stop the containers that use it first")
}

// list returns the mount IDs in their order.
func (r *mounted) list() []MountRef {
	if len(r.Refs) == 0 {
		return nil
	}
	refs := make([]MountRef, 0, len(r.Refs))
	for id, ref := range r.Refs {
		refs = append(refs, MountRef{id, ref.Count, ref.Since})
	}
	slices.SortFunc(refs, func(a, b MountRef) int { return strings.Compare(a.ID, b.ID) })
	return refs
}

// with returns a copy in which id counts n, and was last mounted now.
func (r *mounted) with(name, mountpoint, id string, n int, now time.Time) *mounted {
	c := r.clone()
	c.Volume, c.Mountpoint = name, mountpoint
	c.Refs[id] = ref{n, now}
	return c
}

// without returns a copy with one mount by id less.
func (r *mounted) without(id string) *mounted {
	c := r.clone()
	was := c.Refs[id]
	if was.Count > 1 {
		c.Refs[id] = ref{was.Count - 1, was.Since}
	} else {
		delete(c.Refs, id)
		delete(c.stale, id)
	}
	return c
}

func (r *mounted) clone() *mounted {
	c := &mounted{record: r.record, stale: maps.Clone(r.stale)}
	if c.Refs = maps.Clone(r.Refs); c.Refs == nil {
		c.Refs = map[string]ref{}
	}
	return c
}
