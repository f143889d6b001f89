package store

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Progress is told how far the work on something is: a layer, by the first 12 digits of its digest. Status is
// in the words of the engine, such as "Extracting". Total is 0 where there is nothing to count.
type Progress func(id, status string, current, total int64)

// progressTime is how often a count is told.
const progressTime = 100 * time.Millisecond

// ShortID is how progress names a blob.
func ShortID(d digest.Digest) string { return d.Encoded()[:12] }

// Throttled returns a Progress that is told of each status once, and of what is counted ten times in a
// second. It may be called from any goroutine, and where p is nil it does nothing.
func (p Progress) Throttled() Progress {
	type last struct {
		status string
		at     time.Time
	}
	var mu sync.Mutex
	seen := map[string]last{}
	return func(id, status string, current, total int64) {
		if p == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		l := seen[id]
		now := time.Now()
		if total > 0 && l.status == status && now.Sub(l.at) < progressTime {
			return
		}
		seen[id] = last{status, now}
		p(id, status, current, total)
	}
}
