package rbd

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// full is all that the core makes of this provider.
type full interface { //nolint:interfacebloat // it is put together of those of sdk/volume
	volume.Driver
	volume.Inspector
	volume.Pinger
	volume.Resizer
	volume.Snapshotter
	volume.SnapshotOpener
	volume.Rollbacker
	volume.Cloner
	volume.Trasher
	volume.Looker
	volume.Attacher
	volume.Importer
	volume.Worker
	volume.Sizer
	volume.Surveyor
	io.Closer
	Scope() string
}

// pool is the driver, with what can be told of a pool of Ceph beyond what all clouds can.
type pool struct {
	full
	p *provider
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	if err := c.fromREXRay(os.Getenv); err != nil {
		return nil, err
	}
	p, err := newProvider(ctx, c, env)
	if err != nil {
		return nil, err
	}
	d, err := block.Open(ctx, p, c.Config, env)
	if err != nil {
		p.end()
		return nil, err
	}
	return &pool{d.(full), p}, nil
}

// Close ends what goes on in the background. What is attached stays.
func (d *pool) Close() error {
	defer d.p.end()
	return d.full.Close()
}

// Advice says how images become devices here.
func (d *pool) Advice() catalog.Advice { return d.p.Advice() }

// Usage is what the file system says where the volume is mounted here, and else what its image
// takes of the pool, as rbd du counts it.
func (d *pool) Usage(ctx context.Context, name string) (volume.Usage, error) {
	u, err := d.full.Usage(ctx, name)
	if err != nil || u.Used != u.Limit {
		return u, err
	}
	info, err := d.Inspect(ctx, name)
	if err != nil {
		return u, err
	}
	id, _ := info.Status["disk"].(string)
	image, err := d.p.nameOf(ctx, id)
	if err != nil {
		return u, nil //nolint:nilerr // the size is known
	}
	du, err := ask[struct {
		Images []struct {
			Name     string
			Snapshot string
			Used     int64 `json:"used_size"`
		}
	}](ctx, d.p.cluster, "du", d.p.spec(image))
	if err != nil {
		return u, nil //nolint:nilerr // the size is known
	}
	u.Used = 0
	for _, i := range du.Images { // with its snapshots, each of which has a line
		u.Used += i.Used
	}
	return u, nil
}

// statsLag is how long the statistics of a cluster may be without a pool that was just made.
const statsLag = 10 * time.Second

// Space is that of the pool, as much of it as the cluster has room for.
func (d *pool) Space(ctx context.Context) (volume.Space, error) {
	name := d.p.c.Pool
	if d.p.c.DataPool != "" {
		name = d.p.c.DataPool
	}
	for began := time.Now(); ; {
		space, found, err := d.space(ctx, name)
		if err != nil || found {
			return space, err
		}
		if time.Since(began) > statsLag {
			return space, errdefs.Errorf(errdefs.ErrNotFound, "pool %q: the cluster tells nothing of one of this name", name)
		}
		select {
		case <-ctx.Done():
			return space, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

func (d *pool) space(ctx context.Context, name string) (s volume.Space, found bool, err error) {
	out, err := d.p.within(ctx, 2*d.p.c.Timeout, "ceph", "df", "--format", "json")
	if err != nil {
		return s, false, err
	}
	var df struct {
		Pools []struct {
			Name  string
			Stats struct {
				Stored int64
				Avail  int64 `json:"max_avail"`
			}
		}
	}
	if err := json.Unmarshal(out, &df); err != nil {
		return s, false, errdefs.Errorf(errdefs.ErrUnavailable, "ceph df: what it prints is no JSON: %w", err)
	}
	for _, p := range df.Pools {
		if p.Name == name {
			return volume.Space{Total: p.Stats.Stored + p.Stats.Avail, Free: p.Stats.Avail}, true, nil
		}
	}
	return s, false, nil
}
