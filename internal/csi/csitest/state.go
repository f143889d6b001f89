package csitest

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/mount"
)

// Volume is what the storage knows of a volume.
type Volume struct {
	ID, Name string
	// Key names its files.
	Key string
	// Size is how large it is; NodeSize how large its file system is, which NodeExpandVolume makes the same.
	Size, NodeSize int64
	// Made is how large it was made.
	Made int64
	// Params are the parameters of CreateVolume, Mutable the last of ControllerModifyVolume.
	Params, Mutable map[string]string
	// Caps are the capabilities that were asked for; none is any.
	Caps []string
	// Context is the volume_context.
	Context map[string]string
	// Source is the id of a snapshot or volume that it was made of.
	Source   string
	Topology map[string]string
	Attached map[string]*Attachment
	// Staged is by node, Published by target.
	Staged    map[string]*Stage
	Published map[string]*Publication
}

// Attachment is that of a volume to a node.
type Attachment struct {
	Context  map[string]string
	Cap      string
	Readonly bool
}

// Stage is a volume staged on a node.
type Stage struct{ Path, Cap string }

// Publication is a volume published at a target.
type Publication struct {
	Node, Target, Cap string
	Readonly          bool
}

// Snapshot is what the storage knows of a snapshot.
type Snapshot struct {
	ID, Name, Key, Volume, Group string
	Size                         int64
	Created                      time.Time
	Calls                        int // of CreateSnapshot
}

// Group is a group of snapshots.
type Group struct {
	ID, Name, Key string
	Snapshots     []string
	Created       time.Time
}

// storage is what outlives the processes of all drivers: each object in a file, written before an answer.
type storage struct {
	dir       string
	mu        sync.Mutex
	volumes   map[string]*Volume
	snapshots map[string]*Snapshot
	groups    map[string]*Group
	nodes     map[string]map[string]string // where each is
	// deleted are the ids of volumes that were.
	deleted map[string]bool
}

func openStorage(dir string) (*storage, error) {
	s := &storage{dir: dir, volumes: map[string]*Volume{}, snapshots: map[string]*Snapshot{}, groups: map[string]*Group{}, deleted: map[string]bool{}}
	for _, sub := range []string{"volumes", "snapshots", "groups", "deleted", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	var dead []*Volume
	for _, err := range []error{
		load(dir+"/volumes", func(v *Volume) { s.volumes[v.ID] = v }),
		load(dir+"/snapshots", func(v *Snapshot) { s.snapshots[v.ID] = v }),
		load(dir+"/groups", func(v *Group) { s.groups[v.ID] = v }),
		load(dir+"/deleted", func(v *Volume) { dead = append(dead, v) }),
	} {
		if err != nil {
			return nil, err
		}
	}
	for _, v := range dead {
		s.deleted[v.ID] = true
	}
	return s, nil
}

func load[T any](dir string, add func(*T)) error {
	files, err := filepath.Glob(dir + "/*.json")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		v := new(T)
		if err := json.Unmarshal(text, v); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		add(v)
	}
	return nil
}

// save writes an object. It is there or not, whenever the process is killed.
func (s *storage) save(kind, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, kind, key+".json")
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func (s *storage) saveVolume(v *Volume) error { return s.save("volumes", v.Key, v) }

func (s *storage) drop(kind, key string) error {
	if err := os.Remove(filepath.Join(s.dir, kind, key+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// data is the directory that is a volume, or a snapshot.
func (s *storage) data(key string) string { return filepath.Join(s.dir, "data", key) }

// copyData makes the data of to anew from that of from, whole or not at all.
func (s *storage) copyData(from, to string) error {
	part := s.data(to) + ".part"
	if err := errors.Join(os.RemoveAll(part), os.RemoveAll(s.data(to))); err != nil {
		return err
	}
	if err := os.CopyFS(part, os.DirFS(s.data(from))); err != nil {
		return err
	}
	return os.Rename(part, s.data(to))
}

func (s *storage) volumeNamed(name string) *Volume {
	for _, v := range s.volumes {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func (s *storage) snapshotNamed(name string) *Snapshot {
	for _, v := range s.snapshots {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// staged is the stage of a volume at a node. One that is not mounted any more, as after a reboot, is none.
func (v *Volume) staged(node string) *Stage {
	s := v.Staged[node]
	if s == nil || !mounted(s.Path) {
		return nil
	}
	return s
}

// published are the publications at a node that are mounted.
func (v *Volume) published(node string) (list []*Publication) {
	for _, target := range sortedKeys(v.Published) {
		if p := v.Published[target]; p.Node == node && mounted(p.Target) {
			list = append(list, p)
		}
	}
	return list
}

func mounted(path string) bool {
	// A mount whose server has died is one, and its path cannot be looked at.
	path = filepath.Clean(path)
	list, err := mount.List(path)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list, func(m mount.Info) bool { return m.Mountpoint == path })
}

func newKey() string { return strings.ToLower(rand.Text())[:16] }

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func compare(a, b string) int { return cmp.Compare(a, b) }

// addNode tells the storage of a node, and where it is.
func (s *storage) addNode(id string, topology map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes = map[string]map[string]string{}
	}
	s.nodes[id] = topology
}

func (s *storage) isNode(id string) bool { _, ok := s.nodes[id]; return ok }

func (s *storage) attachedTo(node string) (n int64) {
	for _, v := range s.volumes {
		if v.Attached[node] != nil {
			n++
		}
	}
	return n
}
