// Package dobs is the driver whose volumes are those of DigitalOcean's block storage: one for
// each volume of an engine, attached to the droplet on which a container uses it.
//
// What is the same for all clouds is package block. Here is what DigitalOcean calls things, which
// of its errors means what, and how our tags are written where a tag is one word that knows no
// capitals.
package dobs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("dobs", "a disk of DigitalOcean for each volume, which follows its container", open).
		WithOptions(block.Options(traits())).WithVariables(described()...)
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	p, err := connect(ctx, c, env.Log())
	if err != nil {
		return nil, err
	}
	return block.Open(ctx, p, c.Config, env)
}

const gib = 1 << 30

// traits are what all pools have in common. A zone is a region.
func traits() block.Traits {
	return block.Traits{
		Kind: "dobs", Scope: "DigitalOcean", Options: []string{"zone", "snapshot"},
		Unit: gib, MinSize: gib, MaxSize: 16 << 40,
		Zonal: true, Outlive: true,
	}
}

// provider is the account of one token.
type provider struct {
	c      config
	t      block.Traits
	token  *token
	do     *godo.Client
	client *block.Client
	host   metadata
	warn   func(ctx context.Context, left, limit int, until time.Time)

	pages atomic.Int64  // how many a list of all had last
	turn  chan struct{} // whose it is to attach or detach

	mu      sync.Mutex
	self    *block.Host
	written map[string]written // tags that were written by us, by ID
	tags    map[string]bool    // those that the account is known to have, in lower case
	warned  time.Time
	moves   map[string]move // what we have begun here, by ID
}

var (
	_ block.Provider    = (*provider)(nil)
	_ block.Snapshotter = (*provider)(nil)
	_ block.Resizer     = (*provider)(nil)
	_ block.Prober      = (*provider)(nil)
	_ block.Finder      = (*provider)(nil)
	_ block.Owner       = (*provider)(nil)
)

// Traits returns what the pool can do.
func (p *provider) Traits() block.Traits { return p.t }

// Owner tells tokens apart. Which account one is of it does not say.
func (p *provider) Owner() string { return p.c.account(p.token) }

// ask makes one request, when the account has room for it.
func ask[T any](ctx context.Context, p *provider, call string, do func(ctx context.Context) (T, *godo.Response, error)) (v T, resp *godo.Response, err error) {
	err = p.client.Do(ctx, call, func(ctx context.Context) error {
		v, resp, err = do(ctx)
		if resp != nil {
			p.watchRate(ctx, resp.Rate)
		}
		return p.explain(ctx, call, err)
	})
	return v, resp, err
}

// tell is ask for requests without a result.
func tell(ctx context.Context, p *provider, call string, do func(ctx context.Context) (*godo.Response, error)) error {
	_, _, err := ask(ctx, p, call, func(ctx context.Context) (struct{}, *godo.Response, error) {
		resp, err := do(ctx)
		return struct{}{}, resp, err
	})
	return err
}

// watchRate warns when an account has used up most of the requests of an hour: others use it too.
func (p *provider) watchRate(ctx context.Context, r godo.Rate) {
	if r.Limit <= 0 || r.Remaining > r.Limit/10 {
		return
	}
	p.mu.Lock()
	first := !r.Reset.Equal(godo.Timestamp{Time: p.warned})
	p.warned = r.Reset.Time
	p.mu.Unlock()
	if first {
		p.warn(ctx, r.Remaining, r.Limit, r.Reset.Time)
	}
}
