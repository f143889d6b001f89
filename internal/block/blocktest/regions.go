package blocktest

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

// Zoned is a [Cloud] whose disks are in zones, and out of reach of hosts in another one.
type Zoned interface {
	Cloud
	// Zones are those that hosts can be in, two at the least.
	Zones() []string
	// HostIn adds a machine in a zone.
	HostIn(t testing.TB, zone string) *Host
}

// Regioned is a [Cloud] whose account has another region, to which snapshots can be copied.
type Regioned interface {
	Cloud
	// Elsewhere returns the other region, the same each time.
	Elsewhere(t testing.TB) Cloud
	// Region is how the cloud calls this one.
	Region() string
}

// Zones implements [Zoned].
func (c *Reference) Zones() []string { return c.In }

// Region implements [Regioned].
func (c *Reference) Region() string { return c.region }

// Elsewhere implements [Regioned].
func (c *Reference) Elsewhere(t testing.TB) Cloud {
	const name = "elsewhere"
	if o, ok := c.others[name]; ok {
		return o
	}
	o := NewReference(t)
	o.region, o.others, o.Delay, o.Lag = name, c.others, c.Delay, c.Lag
	for _, zone := range c.In {
		o.In = append(o.In, "other-"+zone)
	}
	c.others[name] = o
	return o
}

// CopySnapshot implements [block.SnapshotCopier].
func (p *refProvider) CopySnapshot(ctx context.Context, sn block.Snapshot, from block.Traits, tags block.Tags) (block.Snapshot, error) {
	there, ok := p.c.others[from.Region]
	if !ok || there == p.c {
		return block.Snapshot{}, errdefs.Errorf(errdefs.ErrUnsupported, "a snapshot cannot be copied from %s", from.Scope)
	}
	there.mu.Lock()
	source, ok := there.snaps[sn.ID]
	ready := ok && source.State == block.Ready
	there.mu.Unlock()
	if !ok {
		return block.Snapshot{}, errdefs.Errorf(errdefs.ErrNotFound, "snapshot %s: there is none in %s", sn.ID, from.Region)
	}
	if !ready {
		return block.Snapshot{}, errdefs.Errorf(errdefs.ErrInUse, "snapshot %s is %s", sn.ID, source.State)
	}
	return ask(ctx, p, "CopySnapshot", func() (block.Snapshot, error) {
		for _, s := range p.c.snaps {
			if s.Tags[block.TagUUID] == tags[block.TagUUID] {
				return s.Snapshot, nil
			}
		}
		p.c.next++
		s := &refSnapshot{Snapshot: block.Snapshot{
			ID: fmt.Sprintf("snap-%s-%06d", p.c.region, p.c.next), Tags: maps.Clone(tags), Size: source.Size, State: block.Creating, Created: time.Now(),
		}}
		s.file = filepath.Join(p.c.dir, s.ID+".snap")
		if err := machine.Copy(s.file, source.file); err != nil {
			return block.Snapshot{}, err
		}
		p.c.snaps[s.ID] = s
		p.c.later(func() { s.State = block.Ready })
		return s.Snapshot, nil
	})
}
