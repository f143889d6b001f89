package names

import (
	"hash/maphash"
	"maps"
)

const shards = 256

var seed = maphash.MakeSeed()

// table is a map that never changes. The next one shares with it all that is the same in both, so that a
// change costs what has changed.
type table[K comparable, V any] struct {
	shards [shards]map[K]V
}

func shard[K comparable](k K) uint8 { return uint8(maphash.Comparable(seed, k)) }

func (t *table[K, V]) get(k K) V { return t.shards[shard(k)][k] }

// edit returns what makes the next table out of t.
func (t *table[K, V]) edit() *edit[K, V] { return &edit[K, V]{next: *t} }

// edit is a table that is being made. Nobody else sees it until it is done.
type edit[K comparable, V any] struct {
	next table[K, V]
	own  [shards]bool // those that are copies already
}

func (e *edit[K, V]) shard(k K) map[K]V {
	i := shard(k)
	if !e.own[i] {
		e.own[i] = true
		if e.next.shards[i] == nil {
			e.next.shards[i] = map[K]V{}
		} else {
			e.next.shards[i] = maps.Clone(e.next.shards[i])
		}
	}
	return e.next.shards[i]
}

func (e *edit[K, V]) set(k K, v V) { e.shard(k)[k] = v }

func (e *edit[K, V]) delete(k K) {
	if _, there := e.next.shards[shard(k)][k]; there {
		delete(e.shard(k), k)
	}
}
