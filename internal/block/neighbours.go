package block

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// poolKey is which pool of which daemon a driver is: tests have several daemons in a process.
type poolKey struct{ stateDir, name string }

// neighbours are the pools of block storage in this process, to which volumes may be moved.
var neighbours = pools{all: map[poolKey]*driver{}, places: map[string]*driver{}}

type pools struct {
	mu     sync.Mutex
	all    map[poolKey]*driver
	places map[string]*driver // by whose volumes they have
}

// settle makes the volumes of the namespace this pool's: two that have the same would detach each
// other's disks.
func (p *pools) settle(d *driver, env catalog.Env) error {
	d.pool = poolKey{env.StateDir, env.PoolName}
	d.place = strings.Join([]string{env.RunDir, d.t.Client.account, d.t.Scope, d.c.Namespace}, "\x00")
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.places[d.place]; other != nil && other.pool.name != d.pool.name {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "namespace %q: its volumes are those of the pool %q already", d.c.Namespace, other.pool.name),
			"give each pool of one account its own namespace; options such as type can be given for each volume")
	}
	p.places[d.place] = d // of one that is opened anew while the old one ends, the younger
	return nil
}

func (p *pools) put(d *driver) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[d.pool] = d
}

func (p *pools) drop(d *driver) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all[d.pool] == d { // else a reload has put another one there
		delete(p.all, d.pool)
	}
	if p.places[d.place] == d {
		delete(p.places, d.place)
	}
}

// beside returns the pools of the same daemon with the same driver, d among them, by name.
func (p *pools) beside(d *driver) (all []*driver) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, o := range p.all {
		if key.stateDir == d.pool.stateDir && o.t.Kind == d.t.Kind {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *driver) int { return cmp.Compare(a.pool.name, b.pool.name) })
	return all
}

// neighbour returns a pool of the same driver by its name, d itself for its own.
func (d *driver) neighbour(name string) (*driver, error) {
	if name == d.pool.name {
		return d, nil
	}
	all := neighbours.beside(d)
	if i := slices.IndexFunc(all, func(o *driver) bool { return o.pool.name == name }); i >= 0 {
		return all[i], nil
	}
	err := errdefs.Errorf(errdefs.ErrUnsupported, "pool %q is no pool of driver %s: a volume can be moved between pools of one driver alone", name, d.t.Kind)
	if len(all) > 1 {
		err = errdefs.Hint(err, "pools of this driver: "+names(all))
	}
	return nil, errdefs.Hint(err, "between drivers, back it up and restore it in the other pool: remora backup create, remora backup restore --help")
}

// inRegion returns the pool of the same driver that is in a region.
func (d *driver) inRegion(region string) (*driver, error) {
	if d.t.region() == region {
		return d, nil
	}
	var found []*driver
	for _, o := range neighbours.beside(d) {
		if o.t.region() == region {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "no pool of driver %s is in region %q", d.t.Kind, region),
			"a pool has the volumes of one region: configure one for that region, and move the volume there")
	}
	return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "there are %d pools of driver %s in region %q", len(found), d.t.Kind, region),
		"name one with --to-pool: "+names(found))
}

func names(all []*driver) string {
	var out []string
	for _, o := range all {
		out = append(out, o.pool.name)
	}
	return strings.Join(out, ", ")
}

// poolTime is how long a job that goes on after a start waits for another pool to be opened.
const poolTime = time.Minute

// reach returns the pool that a job goes to. After a start it may not be open yet.
func (d *driver) reach(ctx context.Context, r *jobs.Run, name string) (*driver, error) {
	for began := time.Now(); ; {
		o, err := d.neighbour(name)
		if err == nil || !r.Resumed() || time.Since(began) > poolTime {
			return o, err
		}
		if err := r.Step("waiting for pool "+name, nil); err != nil {
			return nil, err
		}
		select {
		case <-time.After(d.t.Poll):
		case <-ctx.Done():
			return nil, errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// region is that of the account's, as its own words or the scope say.
func (t Traits) region() string {
	if of, ok := strings.CutPrefix(t.Scope, "region "); ok && t.Region == "" {
		return of
	}
	return t.Region
}
