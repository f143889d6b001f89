package names

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Records are those of all hosts, as the store keeps them.
type Records interface {
	// Records returns the living ones of a kind.
	Records(kind string) []record.Record
	// Watch has a value in changed after one of these kinds has changed.
	Watch(kinds ...string) (changed <-chan struct{}, stop func())
}

// Hosts tells which hosts can be reached.
type Hosts interface {
	Reachable(h record.Host) bool
	// Watch has a value in changed after that has changed for some host.
	Watch() (changed <-chan struct{}, stop func())
}

// pause is how long after a zone the next one is made at the earliest, and share how much longer than it took that is: however
// many records change, no more than a twentieth of a processor is spent on them. The first change is seen at once.
const (
	pause = 20 * time.Millisecond
	share = 19
)

// sweep is how often names are looked for that are gone long enough to be forgotten.
const sweep = time.Minute

// Zones always has the newest zone.
type Zones struct {
	records Records
	hosts   Hosts
	current atomic.Pointer[Zone]
	bad     atomic.Int64

	mu    sync.Mutex
	build *builder
}

// New returns the zones of these records. It is up to date when it returns, and stays so while Run runs.
func New(cfg Config, records Records, hosts Hosts) *Zones {
	z := &Zones{records: records, hosts: hosts, build: newBuilder(cfg, time.Now())}
	z.Refresh()
	return z
}

// Zone returns the newest one. It takes no lock.
func (z *Zones) Zone() *Zone { return z.current.Load() }

// Bad is the number of records of names that say something that cannot be answered, and of which that is left out.
func (z *Zones) Bad() int { return int(z.bad.Load()) }

// Refresh looks at all records now.
func (z *Zones) Refresh() {
	z.mu.Lock()
	defer z.mu.Unlock()
	networks := slices.Concat(z.records.Records(record.KindNetwork), z.records.Records(record.KindSwarm))
	z.current.Store(z.build.update(z.records.Records(record.KindName), networks, z.hosts.Reachable, time.Now()))
	z.bad.Store(int64(z.build.bad))
}

// Run makes a new zone whenever something has changed, until ctx ends.
func (z *Zones) Run(ctx context.Context) {
	records, stopRecords := z.records.Watch(record.KindName, record.KindNetwork, record.KindSwarm)
	defer stopRecords()
	hosts, stopHosts := z.hosts.Watch()
	defer stopHosts()
	forget := time.NewTicker(sweep)
	defer forget.Stop()
	for {
		begun := time.Now()
		z.Refresh()
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(pause, share*time.Since(begun))):
		}
		select {
		case <-ctx.Done():
			return
		case <-records:
		case <-hosts:
		case <-forget.C:
		}
	}
}
