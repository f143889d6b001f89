// Package gcepd is the driver whose volumes are disks of Google's Compute Engine: one for each
// volume, attached to the instance on which a container uses it.
//
// What is the same for all clouds is package block. Here is what Compute Engine calls things, how
// tags become labels, which of its errors means what, and how a disk is known on an instance: by
// the name that it was attached with, which is always that of the disk.
package gcepd

import (
	"context"
	"net/http"
	"sync"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("gcepd", "a disk of Google Compute Engine for each volume, which follows its container", open).
		WithOptions(block.Options(traits())).WithVariables(described()...)
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	p, err := connect(ctx, c, env.Log(), metadataAddress())
	if err != nil {
		return nil, err
	}
	return block.Open(ctx, p, c.Config, env)
}

const gib = 1 << 30

// traits are what all pools have in common. A clone is made by a snapshot, and not of the disk: a
// disk can be the source of one in its own zone and of its own type alone.
func traits() block.Traits {
	return block.Traits{
		Kind:    "gcepd",
		Options: []string{"type", "iops", "throughput", "zone", "encrypted", "kms_key", "snapshot"},
		Extra: []catalog.Key{
			{Name: multiWriter, Type: "bool", Help: "refused when true: Google would let several hosts write to some disks, and the file system would be lost"},
		},
		Unit: gib, MinSize: 4 * gib, MaxSize: 64 << 40,
		Zonal: true, Outlive: true,
	}
}

// provider is Compute Engine in one project, with the credentials of one pool.
type provider struct {
	c      config
	t      block.Traits
	api    *compute.Service
	base   *http.Transport
	tokens *tokens // those of the instance's account; nil where there is a key
	host   metadata

	mu      sync.Mutex
	self    *block.Host
	pending map[string]pending  // what was begun and is not seen yet, by disk
	seen    map[string]labelled // labels as they were last told, by disk
}

var (
	_ block.Provider    = (*provider)(nil)
	_ block.Snapshotter = (*provider)(nil)
	_ block.Resizer     = (*provider)(nil)
	_ block.Prober      = (*provider)(nil)
	_ block.Finder      = (*provider)(nil)
)

// Traits returns what the pool can do.
func (p *provider) Traits() block.Traits { return p.t }

// Close gives back the connections that are kept for the next request.
func (p *provider) Close() error {
	p.base.CloseIdleConnections()
	p.host.CloseIdleConnections()
	return nil
}

// doer is a request of the SDK that is ready to be made.
type doer[T any] interface {
	Do(opts ...option) (T, error)
}

// ask makes one request about something in a place, when the account has room for it.
func ask[T any](ctx context.Context, p *provider, op, place string, r doer[T]) (v T, err error) {
	err = p.t.Client.Do(ctx, op, func(context.Context) error {
		v, err = r.Do()
		return p.explain(ctx, op, place, err)
	})
	return v, err
}
