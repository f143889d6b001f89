package volume

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// index is the memory from which List, Get and Path are answered.
type index struct {
	mu      sync.RWMutex
	volumes map[string]stamped
	sorted  []Info // by name, as of before changed; nil before the first list
	changed map[string]bool
	loaded  bool   // a whole listing has been seen
	clock   uint64 // counts changes
	// gone holds what was dropped while somebody, so many of them, looks at the driver.
	gone  map[string]uint64
	looks int
	// pinned are those that a listing does not change.
	pinned map[string]bool
}

// stamped is a volume and the change that put it here.
type stamped struct {
	Info
	at uint64
}

func newIndex() *index {
	return &index{volumes: map[string]stamped{}, changed: map[string]bool{}, gone: map[string]uint64{}, pinned: map[string]bool{}}
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
	x.change(info.Name)
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
	x.change(info.Name)
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
		x.change(name)
	}
}

// change notes that sorted is not right any more for a volume.
func (x *index) change(name string) {
	if x.sorted != nil {
		x.changed[name] = true
	}
}

// list returns all volumes by name. The slice is shared and must not be changed; after a
// change there is another one.
func (x *index) list() (all []Info, loaded bool) {
	x.mu.RLock()
	all, loaded = x.sorted, x.loaded
	fresh := all != nil && len(x.changed) == 0
	x.mu.RUnlock()
	if fresh || !loaded {
		return all, loaded
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sorted == nil || len(x.changed) > 0 {
		x.sort()
	}
	return x.sorted, true
}

// sort makes sorted anew. What has not changed is in order already, and is only copied:
// to sort a hundred thousand names takes longer than to send them.
func (x *index) sort() {
	names := slices.Collect(maps.Keys(x.changed))
	if x.sorted == nil {
		names = slices.Collect(maps.Keys(x.volumes))
	}
	slices.Sort(names)
	all := make([]Info, 0, len(x.volumes))
	rest := x.sorted
	for _, name := range names {
		n, there := slices.BinarySearchFunc(rest, name, func(i Info, name string) int { return cmp.Compare(i.Name, name) })
		all = append(all, rest[:n]...)
		if rest = rest[n:]; there {
			rest = rest[1:]
		}
		if s, ok := x.volumes[name]; ok {
			all = append(all, s.Info)
		}
	}
	x.sorted = append(all, rest...)
	x.changed = map[string]bool{} // not cleared: a map keeps the memory of what was in it
}

// pin has a volume stay as it is whatever a listing says, until the function that it returns is
// called. A listing that begins meanwhile and ends after that is not believed about it either.
func (x *index) pin(name string) (unpin func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pinned[name] = true
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.pinned, name)
		if s, ok := x.volumes[name]; ok {
			x.clock++
			s.at = x.clock
			x.volumes[name] = s
		}
	}
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
		if x.gone[info.Name] > since || x.pinned[info.Name] {
			continue
		}
		// What is known already is kept, and not held twice.
		if old, ok := x.volumes[info.Name]; ok && same(old.Info, info) {
			info = old.Info
		} else {
			x.change(info.Name)
		}
		fresh[info.Name] = stamped{info, since}
	}
	for name, s := range x.volumes {
		if s.at > since || x.pinned[name] {
			fresh[name] = s
		} else if _, ok := fresh[name]; !ok {
			if keep(name) {
				fresh[name] = s
			} else {
				lost = append(lost, name)
				x.change(name)
			}
		}
	}
	x.volumes, x.loaded = fresh, true
	return lost
}

// same tells whether two answers about a volume say the same, as far as that can be told.
func same(a, b Info) bool {
	return a.Name == b.Name && a.Mountpoint == b.Mountpoint && a.External == b.External && a.CreatedAt.Equal(b.CreatedAt) &&
		maps.Equal(a.Options, b.Options) && a.Status == nil && b.Status == nil
}
