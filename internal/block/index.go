package block

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/state"
)

// index is the memory of which disks there are. It is in a file too, so that a daemon which
// starts while the cloud is out of reach knows its volumes: one line for each disk, and for
// each change since. The file is a cache; losing it, or a line of it, loses nothing.
type index struct {
	path string

	mu     sync.RWMutex
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

type line struct {
	Put  *Disk     `json:"put,omitempty"`
	Drop string    `json:"drop,omitempty"`
	At   time.Time `json:"at,omitzero"` // when it was dropped
	Head string    `json:"head,omitempty"`
}

// head is the first line of the file.
const head = "remora block index 1"

func newIndex(path string) *index {
	return &index{path: path, disks: map[string]*entry{}, names: map[string][]string{}, gone: map[string]time.Time{}}
}

// load reads the file. One that is not there, or not ours, is as an empty one.
func (x *index) load() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	f, err := os.Open(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return state.Classify(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for first := true; lines.Scan(); first = false {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil { // the last line of a crash
			continue
		}
		switch {
		case first:
			if l.Head != head {
				return nil
			}
			x.loaded = true
		case l.Put != nil:
			delete(x.gone, l.Put.ID)
			x.set(&entry{Disk: *l.Put})
		case l.Drop != "":
			x.unset(l.Drop)
			x.gone[l.Drop] = l.At
		}
	}
	if err := lines.Err(); err != nil || !x.loaded {
		return err
	}
	x.file, err = os.OpenFile(x.path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return state.Classify(err)
	}
	end := make([]byte, 1)
	if fi, err := x.file.Stat(); err == nil && fi.Size() > 0 {
		_, _ = x.file.ReadAt(end, fi.Size()-1)
	}
	if end[0] != '\n' { // a crash came in the middle of a line
		_, err = x.file.WriteString("\n")
	}
	return err
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

// lacking is how many volumes there are, and which of them a list does not have that should.
type lacking struct {
	all     int
	missing []string
}

func (x *index) lacking(listed map[string]bool) (l lacking) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for id, e := range x.disks {
		if !live(e.Disk) {
			continue
		}
		l.all++
		if !listed[id] && time.Since(e.changed) > settled {
			l.missing = append(l.missing, id)
		}
	}
	return l
}

// put takes over a disk that we have just made, or taken in.
func (x *index) put(d Disk) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.gone, d.ID)
	x.set(&entry{Disk: d, changed: time.Now()})
	x.note(line{Put: &d})
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
	x.set(&entry{d, time.Now(), mine})
	x.note(line{Put: &d})
}

// change takes over what else we did to a disk, as far as it is remembered: who has it, or how
// large it is. Its tags are as they were: another host may be about to change them.
func (x *index) change(id string, to func(*Disk)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.disks[id]; ok {
		to(&e.Disk)
		x.note(line{Put: &e.Disk})
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

// note adds a line to the file. It is not synced: what a power cut loses, the next list brings.
func (x *index) note(l line) {
	if x.file == nil {
		return
	}
	text, err := json.Marshal(l)
	if err == nil {
		_, err = x.file.Write(append(text, '\n'))
	}
	if err != nil { // no file is better than one that lacks something
		_ = x.file.Close()
		_ = os.Remove(x.path)
		x.file, x.sum = nil, 0
		return
	}
	x.sum = 0
}

// merge takes over what the cloud listed for a query, asked at the time began. What we did
// ourselves since, or shortly before, is not undone by a list that does not know of it yet.
func (x *index) merge(q Query, list []Disk, began time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, at := range x.gone {
		if time.Since(at) > 5*settled {
			delete(x.gone, id)
		}
	}
	listed := make(map[string]bool, len(list))
	for _, d := range list {
		listed[d.ID] = true
		if _, gone := x.gone[d.ID]; gone {
			continue
		}
		e := x.disks[d.ID]
		if e != nil && d.Unlooked {
			d.Holders = e.Holders
		}
		next := &entry{Disk: d}
		if e != nil {
			if began.Before(e.changed) {
				e.Disk = e.with(further(e.Tags, d.Tags))
				continue
			}
			if began.Before(e.changed.Add(settled)) {
				// What others did meanwhile to the rest of the tags is true.
				next.Disk, next.changed, next.mine = d.with(e.mine), e.changed, e.mine
			}
			next.Disk = next.with(further(e.Tags, d.Tags))
			next.Size = max(d.Size, e.Size) // no disk gets smaller
		}
		x.set(next)
	}
	for id, e := range x.disks {
		if !listed[id] && q.Takes(id, e.Tags[TagName]) && !began.Before(e.changed.Add(settled)) {
			x.unset(id)
		}
	}
	if q.All() {
		x.loaded = true
	}
}

// mergePart is merge with a list of all in which some zones have no part: theirs stay as they were.
func (x *index) mergePart(q Query, list []Disk, began time.Time, zones []string) {
	known := x.known()
	x.merge(q, append(list, x.where(func(d Disk) bool { return slices.Contains(zones, d.Zone) })...), began)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.loaded = known
}

// further returns the record of formatting of a disk as it is in one of two places. It is never
// taken away: the one without it, or that says less, is the older.
func further(a, b Tags) Tags {
	rank := func(t Tags) int {
		switch t[tagFormatted] {
		case "":
			return 0
		case begun:
			return 1
		}
		return 2
	}
	if rank(a) > rank(b) {
		b = a
	}
	if rank(b) == 0 {
		return nil
	}
	return Tags{tagFormatted: b[tagFormatted], tagFS: b[tagFS]}
}

// save writes the whole file, if it is not what is there.
func (x *index) save() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.loaded {
		return nil
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	if err := enc.Encode(line{Head: head}); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(x.disks)) {
		if err := enc.Encode(line{Put: &x.disks[id].Disk}); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(x.gone)) {
		if err := enc.Encode(line{Drop: id, At: x.gone[id]}); err != nil {
			return err
		}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(b.String()))
	if x.file != nil && x.sum == h.Sum64() {
		return nil
	}
	temp := x.path + ".new"
	if err := os.MkdirAll(filepath.Dir(x.path), 0o700); err != nil {
		return state.Classify(err)
	}
	if err := os.WriteFile(temp, []byte(b.String()), 0o600); err != nil {
		return state.Classify(fmt.Errorf("write the index: %w", err))
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		err = os.Rename(temp, x.path)
	}
	if err != nil {
		return state.Classify(err)
	}
	if x.file != nil {
		_ = x.file.Close()
	}
	x.file, x.sum = f, h.Sum64()
	return nil
}

func (x *index) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.file != nil {
		_ = x.file.Close()
		x.file = nil
	}
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
