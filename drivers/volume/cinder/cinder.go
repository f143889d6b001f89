// Package cinder is the driver whose volumes are disks of OpenStack's Cinder: one for each volume,
// attached by Nova to the server on which a container uses it.
//
// What is the same for all clouds is package block. Here is how to log in, what Cinder and Nova
// call things, which of their answers means what, and how a disk is known on a server: by the
// serial that QEMU gives it, which is made of the volume's ID. The name of a device that Nova
// answers is a wish (Nova's API reference, "Attach a volume to an instance"), and never looked at.
package cinder

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("cinder", "a disk of OpenStack Cinder for each volume, which follows its container", open).
		WithOptions(block.Options(traits())).WithVariables(described()...)
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	p, err := newProvider(ctx, c, env.Log())
	if err != nil {
		return nil, err
	}
	return block.Open(ctx, p, c.Config, env)
}

const gib = 1 << 30

// traits are what all pools have in common. Snapshots depend on the disk that they are of.
func traits() block.Traits {
	return block.Traits{
		Kind:    "cinder",
		Options: []string{"type", "zone", "encrypted", "snapshot"},
		Extra: []catalog.Key{
			{Name: multiAttach, Type: "bool", Help: "refused when true: Cinder would let several hosts write to the disk, and its file system would be lost"},
		},
		Unit: gib, MinSize: gib, Clones: true,
	}
}

// provider is one project in one region.
type provider struct {
	c        config
	t        block.Traits
	client   *block.Client
	auth     auth
	http     http.Client
	metadata string // URL of the service that tells a server about itself

	pages atomic.Int64 // how many a list of all had

	gate    chan struct{} // who has put something in logs in, and may use what follows
	session *session
	refused error // why the cloud let nobody in
	until   time.Time

	mu   sync.Mutex
	self *block.Host
}

var (
	_ block.Provider    = (*provider)(nil)
	_ block.Snapshotter = (*provider)(nil)
	_ block.Rollbacker  = (*provider)(nil)
	_ block.Resizer     = (*provider)(nil)
	_ block.Prober      = (*provider)(nil)
	_ block.Finder      = (*provider)(nil)
)

// Traits returns what the pool can do.
func (p *provider) Traits() block.Traits { return p.t }

// Close ends the connections that nobody uses.
func (p *provider) Close() error {
	p.http.CloseIdleConnections()
	return nil
}

// ask makes one request, when the account has room for it.
func ask[T any](ctx context.Context, p *provider, op string, do func(ctx context.Context, s *session) (T, error)) (v T, err error) {
	s, err := p.login(ctx)
	if err != nil {
		return v, err
	}
	err = p.client.Do(ctx, op, func(ctx context.Context) error {
		v, err = do(ctx, s)
		return p.explain(ctx, op, err)
	})
	return v, err
}

// tell is ask without an answer.
func tell(ctx context.Context, p *provider, op string, do func(ctx context.Context, s *session) error) error {
	_, err := ask(ctx, p, op, func(ctx context.Context, s *session) (struct{}, error) { return struct{}{}, do(ctx, s) })
	return err
}
