package csi

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The directories of the store.
const (
	dirVolumes   = "volumes"
	dirTrash     = "trash"
	dirSnapshots = "snapshots"
	dirNodes     = "nodes"
)

// store has what is written down, and the same in memory.
type store struct {
	root *os.Root // what outlives a reboot
	run  *os.Root // what does not
	boot string

	mu        sync.RWMutex
	volumes   map[string]*vol // by name
	trash     map[string]*vol // by ID in the trash
	snapshots map[string]snapshot
	groups    map[string]group // by name

	grouping sync.Mutex // for who changes a group
}

// vol is one volume. What is in it is read with the store's lock; it is changed by who has its turn alone.
type vol struct {
	turn chan struct{} // full while somebody works on it: one RPC at a time
	rec  record
	node node
	gone bool // it was removed, and the name may be another's
	cut  bool // a process before this one was making it; for who has its turn
}

func newVol() *vol { return &vol{turn: make(chan struct{}, 1)} }

// take waits for the volume's turn.
func (v *vol) take(ctx context.Context) (free func(), err error) {
	select {
	case v.turn <- struct{}{}:
		return func() { <-v.turn }, nil
	case <-ctx.Done():
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "it is being worked on: %w", context.Cause(ctx))
	}
}

func openStore(env catalog.Env) (*store, error) {
	s := &store{volumes: map[string]*vol{}, trash: map[string]*vol{}, snapshots: map[string]snapshot{}, groups: map[string]group{}, boot: bootID()}
	var err error
	if s.root, err = openRoot(filepath.Join(env.StateDir, "csi", env.PoolName), dirVolumes, dirTrash, dirSnapshots, dirGroups); err != nil {
		return nil, err
	}
	if s.run, err = openRoot(filepath.Join(env.RunDir, "csi", env.PoolName), dirNodes); err != nil {
		_ = s.root.Close()
		return nil, err
	}
	return s, nil
}

func openRoot(path string, dirs ...string) (*os.Root, error) {
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(path, d), 0o700); err != nil {
			return nil, state.Classify(err)
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, state.Classify(err)
	}
	for _, d := range dirs {
		if err := state.Clean(root, d); err != nil {
			_ = root.Close()
			return nil, err
		}
	}
	return root, nil
}

func (s *store) close() error { return errors.Join(s.root.Close(), s.run.Close()) }

// bootID is another one after each start of the machine (proc_sys_kernel(5), random).
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// load reads all files. One that makes no sense is told of, and left where it is.
func (s *store) load(log *slog.Logger) error {
	err := each(s.root, dirVolumes, recordVersion, log, func(r record) {
		v := newVol()
		v.rec, v.cut = r, r.Doing == callCreate
		s.volumes[r.Name] = v
	})
	err = errors.Join(err, each(s.root, dirTrash, recordVersion, log, func(r record) {
		v := newVol()
		v.rec = r
		s.trash[r.Trash] = v
	}))
	// What is in both was on its way from one to the other.
	lineages := map[string]bool{}
	for _, in := range s.trash {
		lineages[in.rec.Lineage] = true
	}
	for name, v := range s.volumes {
		if lineages[v.rec.Lineage] {
			delete(s.volumes, name)
			err = errors.Join(err, state.Remove(s.root, fileOf(dirVolumes, name)))
		}
	}
	err = errors.Join(err, each(s.root, dirSnapshots, snapshotVersion, log, func(n snapshot) { s.snapshots[n.key()] = n }))
	err = errors.Join(err, each(s.root, dirGroups, groupVersion, log, s.addGroup))
	return errors.Join(err, each(s.run, dirNodes, nodeVersion, log, func(n node) {
		if v := s.volumes[n.Volume]; v != nil && n.Boot == s.boot && (n.ID == v.rec.ID || v.rec.ID == "") {
			v.node = n
		}
	}))
}

func each[T any](root *os.Root, dir string, version int, log *slog.Logger, found func(T)) error {
	return state.Each(root, dir, version, func(file string, one T, err error) {
		if err != nil {
			log.Error("record cannot be read, and is not used", slog.String("file", filepath.Join(root.Name(), dir, file)), slog.Any("error", err))
			return
		}
		found(one)
	})
}

// find returns a volume by its name.
func (s *store) find(name string) (*vol, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.volumes[name]
	return v, ok
}

// see returns what is known of a volume now.
func (s *store) see(v *vol) (record, node) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return v.rec, v.node
}

// gone tells whether a volume was removed while somebody waited for its turn.
func (s *store) gone(v *vol) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return v.gone
}

// byID returns the volume that has an ID of the storage, other than the one of a lineage.
func (s *store) byID(id, lineage string) (record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, all := range []map[string]*vol{s.volumes, s.trash} {
		for _, v := range all {
			if v.rec.ID == id && v.rec.Lineage != lineage {
				return v.rec, true
			}
		}
	}
	return record{}, false
}

// all returns the volumes, by name.
func (s *store) all() []*vol {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := slices.Sorted(maps.Keys(s.volumes))
	all := make([]*vol, len(names))
	for i, name := range names {
		all[i] = s.volumes[name]
	}
	return all
}

// list returns what is known of all volumes, by name.
func (s *store) list() []record {
	vols := s.all()
	all := make([]record, len(vols))
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, v := range vols {
		all[i] = v.rec
	}
	return all
}

// begin makes a volume with a record of its own. A name that is taken is not.
func (s *store) begin(r record) (*vol, error) {
	s.mu.Lock()
	if _, taken := s.volumes[r.Name]; taken {
		s.mu.Unlock()
		return nil, errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name")
	}
	v := newVol()
	v.rec = r
	s.volumes[r.Name] = v
	s.mu.Unlock()
	if err := s.save(v, r); err != nil {
		s.mu.Lock()
		delete(s.volumes, r.Name)
		v.gone = true
		s.mu.Unlock()
		return nil, err
	}
	return v, nil
}

// save writes down what has become of a volume. When it returns nil that is on the disk.
func (s *store) save(v *vol, r record) error {
	dir, name := dirVolumes, r.Name
	if r.Trash != "" {
		dir, name = dirTrash, r.Trash
	}
	if err := state.Write(s.root, fileOf(dir, name), recordVersion, r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.rec = r
	return nil
}

// drop forgets a volume.
func (s *store) drop(v *vol) error {
	r, _ := s.see(v)
	dir, name := dirVolumes, r.Name
	if r.Trash != "" {
		dir, name = dirTrash, r.Trash
	}
	if err := state.Remove(s.root, fileOf(dir, name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.gone = true
	if r.Trash != "" {
		delete(s.trash, r.Trash)
	} else {
		delete(s.volumes, r.Name)
	}
	return nil
}

// saveNode writes down where a volume is on this host. Below /run that costs nothing.
func (s *store) saveNode(v *vol, n node) error {
	r, _ := s.see(v)
	file := fileOf(dirNodes, r.Name)
	var err error
	if n.idle() {
		n = node{}
		err = state.Remove(s.run, file)
	} else {
		n.Volume, n.ID, n.Boot, n.Since = r.Name, r.ID, s.boot, now()
		err = state.Write(s.run, file, nodeVersion, n)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.node = n
	return nil
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// key names a snapshot among all: no name has a blank in it.
func (n snapshot) key() string { return n.Lineage + " " + n.Name }

func (n snapshot) file() string { return fileOf(dirSnapshots, digest("snapshot", n.key())) }

func (s *store) saveSnapshot(n snapshot) error {
	if n.Group != "" {
		return s.saveMember(n)
	}
	if err := state.Write(s.root, n.file(), snapshotVersion, n); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshots[n.key()] = n
	return nil
}

func (s *store) dropSnapshot(n snapshot) error {
	if err := state.Remove(s.root, n.file()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.snapshots, n.key())
	return nil
}

func (s *store) findSnapshot(lineage, name string) (snapshot, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, ok := s.snapshots[snapshot{Lineage: lineage, Name: name}.key()]
	return n, ok
}

// snapshotsOf returns those of a volume, the oldest first.
func (s *store) snapshotsOf(lineage string) (all []snapshot) {
	s.mu.RLock()
	for _, n := range s.snapshots {
		if n.Lineage == lineage {
			all = append(all, n)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b snapshot) int { return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name)) })
	return all
}

// unfinished returns the snapshots that are none, or nobody's.
func (s *store) unfinished() (all []snapshot) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range s.snapshots {
		if n.Doing != "" && n.Doing != callGroup || n.Temp != "" {
			all = append(all, n)
		}
	}
	return all
}

// tempsOf returns the snapshots that were made for a volume alone.
func (s *store) tempsOf(name string) (all []snapshot) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range s.snapshots {
		if n.Temp == name {
			all = append(all, n)
		}
	}
	return all
}
