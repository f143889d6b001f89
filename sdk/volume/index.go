package volume

import (
	"cmp"
	"slices"
	"sync"
)

// index is the memory from which List, Get and Path are answered.
type index struct {
	mu      sync.RWMutex
	volumes map[string]stamped
	sorted  []Info // by name; nil when volumes has changed since
	loaded  bool   // a whole listing has been seen
	clock   uint64 // counts changes
	// gone holds what was dropped while somebody, so many of them, looks at the driver.
	gone  map[string]uint64
	looks int
}

// stamped is a volume and the change that put it here.
type stamped struct {
	Info
	at uint64
}

func newIndex() *index {
	return &index{volumes: map[string]stamped{}, gone: map[string]uint64{}}
}

func (x *index) get(name string) (info Info, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s, ok := x.volumes[name]
	return s.Info, ok
}

func (x *index) put(info Info) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock++
	x.volumes[info.Name] = stamped{info, x.clock}
	x.sorted = nil
}

// found is put for a volume that was looked for since a time that begin returned. What
// was changed here in the meantime, the look may have missed.
func (x *index) found(since uint64, info Info) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone[info.Name] > since || x.volumes[info.Name].at > since {
		return
	}
	x.clock++
	x.volumes[info.Name] = stamped{info, x.clock}
	x.sorted = nil
}

func (x *index) drop(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock++
	if x.looks > 0 {
		x.gone[name] = x.clock
	}
	if _, ok := x.volumes[name]; ok {
		delete(x.volumes, name)
		x.sorted = nil
	}
}

// list returns all volumes by name. The slice is shared and must not be changed.
func (x *index) list() (all []Info, loaded bool) {
	x.mu.RLock()
	all, loaded = x.sorted, x.loaded
	x.mu.RUnlock()
	if all != nil || !loaded {
		return all, loaded
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sorted == nil {
		x.sorted = make([]Info, 0, len(x.volumes))
		for _, s := range x.volumes {
			x.sorted = append(x.sorted, s.Info)
		}
		slices.SortFunc(x.sorted, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	}
	return x.sorted, true
}

// begin is called before a look at the driver; it returns the point in time to hand to
// merge or found. end is called after it, whatever came of it.
func (x *index) begin() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.looks++
	return x.clock
}

func (x *index) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.looks--
	if x.looks == 0 {
		clear(x.gone)
	}
}

// merge takes over a whole listing that was begun at since. What was changed here in
// the meantime, the listing may have missed: it stays as it is. keep tells which
// volumes stay although the listing lacks them. It returns the names that went.
func (x *index) merge(since uint64, listing []Info, keep func(name string) bool) (lost []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	fresh := make(map[string]stamped, len(listing))
	for _, info := range listing {
		if x.gone[info.Name] <= since {
			fresh[info.Name] = stamped{info, since}
		}
	}
	for name, s := range x.volumes {
		if s.at > since {
			fresh[name] = s
		} else if _, ok := fresh[name]; !ok {
			if keep(name) {
				fresh[name] = s
			} else {
				lost = append(lost, name)
			}
		}
	}
	x.volumes, x.sorted, x.loaded = fresh, nil, true
	return lost
}
