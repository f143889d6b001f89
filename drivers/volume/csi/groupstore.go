package csi

import (
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/state"
)

const dirGroups = "groups"

// group is what is remembered of snapshots that one call has made, of one moment. They are in its file and in none of
// their own: all are there, or none.
type group struct {
	Name    string            `json:"name"` // among our files; it stays
	CSIName string            `json:"csi_name"`
	ID      string            `json:"group_snapshot_id,omitempty"`
	Sources []string          `json:"source_volume_ids"`
	Params  map[string]string `json:"parameters,omitempty"`
	Created time.Time         `json:"created"`
	Doing   string            `json:"doing,omitempty"`
	// Members are those that there are still, IDs all that there were.
	Members  []snapshot `json:"members"`
	IDs      []string   `json:"snapshot_ids,omitempty"`
	Suspects []suspect  `json:"suspects,omitempty"`
}

const groupVersion = 1

// whole tells that the snapshots have been made.
func (g group) whole() bool { return g.Doing == "" }

// changeGroup writes down what has become of a group. One without members is forgotten.
func (s *store) changeGroup(name string, change func(*group)) error {
	s.grouping.Lock()
	defer s.grouping.Unlock()
	s.mu.RLock()
	g := s.groups[name]
	s.mu.RUnlock()
	was := g.Members
	g.Members = slices.Clone(was)
	change(&g)
	file := fileOf(dirGroups, name)
	var err error
	if len(g.Members) == 0 {
		err = state.Remove(s.root, file)
	} else {
		err = state.Write(s.root, file, groupVersion, g)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range was {
		delete(s.snapshots, n.key())
	}
	s.addGroup(g)
	return nil
}

// addGroup is for who has the lock.
func (s *store) addGroup(g group) {
	if len(g.Members) == 0 {
		delete(s.groups, g.Name)
		return
	}
	s.groups[g.Name] = g
	for _, n := range g.Members {
		s.snapshots[n.key()] = n
	}
}

func (s *store) findGroup(name string) (group, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g, ok := s.groups[name]
	return g, ok
}

// saveMember writes down what has become of one of them.
func (s *store) saveMember(n snapshot) error {
	return s.changeGroup(n.Group, func(g *group) {
		for i, m := range g.Members {
			if m.key() == n.key() {
				g.Members[i] = n
			}
		}
	})
}

// leaveGroup forgets one of them, unless it is the last, with which the group is to be deleted.
func (s *store) leaveGroup(n snapshot) (last bool, err error) {
	err = s.changeGroup(n.Group, func(g *group) {
		if last = len(g.Members) == 1 && g.Members[0].key() == n.key(); !last {
			g.Members = slices.DeleteFunc(g.Members, func(m snapshot) bool { return m.key() == n.key() })
		}
	})
	return last, err
}

// dropGroup forgets a group and what is left of it.
func (s *store) dropGroup(name string) error {
	return s.changeGroup(name, func(g *group) { g.Members = nil })
}

// halves returns the groups that are not whole, or have left something, of a volume or of any.
func (s *store) halves(lineage string) (all []group) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.groups {
		if (!g.whole() || len(g.Suspects) > 0) && (lineage == "" || slices.ContainsFunc(g.Members, func(n snapshot) bool { return n.Lineage == lineage })) {
			all = append(all, g)
		}
	}
	return all
}

// besides returns the snapshots of other volumes that keep the storage from deleting those of this one.
func (s *store) besides(lineage string) (all []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.groups {
		if !slices.ContainsFunc(g.Members, func(n snapshot) bool { return n.Lineage == lineage }) {
			continue
		}
		for _, n := range g.Members {
			if n.Lineage != lineage {
				all = append(all, n.Volume+"@"+n.Name)
			}
		}
	}
	slices.Sort(all)
	return all
}
