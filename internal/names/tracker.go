package names

import "github.com/remora-plugins/remora/internal/cluster/record"

// tracker keeps what was read out of records, so that only those are read again that are new.
type tracker[T any] struct {
	seen  map[record.Key]*tracked[T]
	round uint64
}

type tracked[T any] struct {
	version   record.Version
	signature [8]byte // tells two records of a host that was cloned apart
	round     uint64
	value     *T
}

// sync takes all the records that there are, and returns what has come and what has gone since it was called last.
// A record that has changed is in both.
func (t *tracker[T]) sync(all []record.Record, read func(record.Record) *T) (added, removed []*T) {
	if t.seen == nil {
		t.seen = map[record.Key]*tracked[T]{}
	}
	t.round++
	for i := range all {
		r := &all[i]
		was := t.seen[r.Key]
		if was != nil && was.version == r.Version && was.signature == [8]byte(r.Signature[:8]) {
			was.round = t.round
			continue
		}
		if was != nil {
			removed = append(removed, was.value)
		}
		now := &tracked[T]{r.Version, [8]byte(r.Signature[:8]), t.round, read(*r)}
		added = append(added, now.value)
		t.seen[r.Key] = now
	}
	if len(t.seen) > len(all) {
		for k, was := range t.seen {
			if was.round != t.round {
				removed = append(removed, was.value)
				delete(t.seen, k)
			}
		}
	}
	return added, removed
}

// all returns what was read, in no order.
func (t *tracker[T]) all() []*T {
	all := make([]*T, 0, len(t.seen))
	for _, s := range t.seen {
		all = append(all, s.value)
	}
	return all
}
