package block

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// index is the memory of which disks there are. It is in a file too, so that a daemon which
// starts while the cloud is out of reach knows its volumes: one line for each disk, and for
// each change since. The file is a cache; losing it, or a line of it, loses nothing.
type index struct {
	path string

	mu     sync.RWMutex
	owner  string            // whose disks they are
	disks  map[string]*entry // by ID
	names  map[string][]string
	gone   map[string]time.Time // what we deleted, by ID
	loaded bool
	file   *os.File
	sum    uint64 // of the file, as it was written as a whole
}

// entry is a disk, and what we changed of it and when: the cloud's lists are older than its answers.
type entry struct {
	Disk
	changed time.Time
	mine    Tags // those that we changed, empty for one that we took away
}

// settled is how long lists may be behind.
const settled = 2 * time.Minute

func newIndex(path, owner string) *index {
	return &index{path: path, owner: owner, disks: map[string]*entry{}, names: map[string][]string{}, gone: map[string]time.Time{}}
}

// set and unset keep the names right. The caller has the lock.
func (x *index) set(e *entry) {
	x.unset(e.ID)
	x.disks[e.ID] = e
	name := e.Tags[TagName]
	x.names[name] = append(x.names[name], e.ID)
}

func (x *index) unset(id string) {
	e, ok := x.disks[id]
	if !ok {
		return
	}
	delete(x.disks, id)
	name := e.Tags[TagName]
	x.names[name] = slices.DeleteFunc(x.names[name], func(i string) bool { return i == id })
	if len(x.names[name]) == 0 {
		delete(x.names, name)
	}
}

// known tells whether the index has ever been whole.
func (x *index) known() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.loaded
}

// volume returns the disk of a volume.
func (x *index) volume(name string) (Disk, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var all []Disk
	for _, id := range x.names[name] {
		all = append(all, x.disks[id].Disk)
	}
	return winner(all)
}

func (x *index) byID(id string) (Disk, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if e, ok := x.disks[id]; ok {
		return e.Disk, true
	}
	return Disk{}, false
}

// volumes returns the disks that are volumes, by name.
func (x *index) volumes() []Disk {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]Disk, 0, len(x.names))
	for _, name := range slices.Sorted(maps.Keys(x.names)) {
		var same []Disk
		for _, id := range x.names[name] {
			same = append(same, x.disks[id].Disk)
		}
		if d, ok := winner(same); ok {
			all = append(all, d)
		}
	}
	return all
}

// where returns the disks, volumes or not, that test takes.
func (x *index) where(test func(Disk) bool) (all []Disk) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, e := range x.disks {
		if test(e.Disk) {
			all = append(all, e.Disk)
		}
	}
	slices.SortFunc(all, func(a, b Disk) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// put takes over a disk that we have just made, or taken in.
func (x *index) put(d Disk) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.gone, d.ID)
	e := &entry{Disk: d, changed: time.Now()}
	x.set(e)
	x.note(e.line())
}

// retag takes over tags that we changed, and the cloud has confirmed. d is the disk as it is
// known where it is not remembered.
func (x *index) retag(d Disk, tags Tags) {
	x.mu.Lock()
	defer x.mu.Unlock()
	mine := Tags{}
	if e, ok := x.disks[d.ID]; ok {
		d = e.Disk
		maps.Copy(mine, e.mine)
	}
	maps.Copy(mine, tags)
	d = d.with(tags)
	delete(x.gone, d.ID)
	e := &entry{d, time.Now(), mine}
	x.set(e)
	x.note(e.line())
}

// change takes over what else we did to a disk, as far as it is remembered: who has it, or how
// large it is. Its tags are as they were: another host may be about to change them.
func (x *index) change(id string, to func(*Disk)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.disks[id]; ok {
		to(&e.Disk)
		x.note(e.line())
	}
}

// drop forgets a disk that is gone, or going. Lists that still have it are not believed.
func (x *index) drop(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unset(id)
	x.gone[id] = time.Now()
	x.note(line{Drop: id, At: x.gone[id]})
}

// winner returns which of the disks of one name is the volume: all hosts come to the same
// one. What took the place of another wins over it, then one with data over one without, then
// the older.
func winner(all []Disk) (Disk, bool) {
	all = slices.DeleteFunc(slices.Clone(all), func(d Disk) bool { return !live(d) })
	if len(all) == 0 {
		return Disk{}, false
	}
	replaced := map[string]bool{}
	for _, d := range all {
		replaced[d.Tags[tagReplaces]] = true
	}
	rank := func(d Disk) int {
		switch {
		case replaced[d.Tags[TagUUID]]:
			return 2
		case formatted(d):
			return 0
		}
		return 1
	}
	return slices.MinFunc(all, func(a, b Disk) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Created.Compare(b.Created), cmp.Compare(a.Tags[TagUUID], b.Tags[TagUUID]), cmp.Compare(a.ID, b.ID))
	}), true
}
