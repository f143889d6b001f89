package block

import (
	"slices"
	"time"
)

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

// pass notes whose the disks are of a list that was asked for at the time began, and tells whether those
// before were another's: nothing of them is to be believed any more.
func (x *index) pass(owner string, began time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.owner == owner {
		return false
	}
	x.owner = owner
	for _, e := range x.disks {
		if e.changed.Before(began) {
			e.changed, e.mine = time.Time{}, nil
		}
	}
	if x.file != nil { // it says whose its disks are, and is written anew
		_ = x.file.Close()
		x.file, x.sum = nil, 0
	}
	return true
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
