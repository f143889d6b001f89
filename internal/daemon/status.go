package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Status implements [control.Daemon].
func (d *Daemon) Status(ctx context.Context) (control.Status, error) {
	conf := d.conf.Load()
	s := control.Status{
		Version:    d.options.Version,
		PID:        os.Getpid(),
		Started:    d.started,
		ConfigFile: conf.File,
		PluginDir:  conf.PluginDir,
		RunDir:     conf.RunDir,
		StateDir:   conf.StateDir,
		Pools:      []control.Pool{},
	}
	if refused := d.confErr.Load(); refused != nil {
		s.ConfigError = (*refused).Error()
	}
	var err error
	for _, p := range d.pools.All() {
		at := d.doorOf(p.Name())
		if at == nil {
			continue // it has just been removed
		}
		c := control.Pool{Name: p.Conf.Name, Driver: p.Conf.Driver, Socket: at.addr, Reachable: true}
		c.Volumes, c.Mounted = p.Counts()
		c.Trash = p.KeepsTrash()
		if err := d.reachable(p); err != nil {
			c.Reachable, c.Error, c.Mend = false, err.Error(), strings.Join(errdefs.Hints(err), "; ")
		}
		c.About = p.About()
		if a := p.Advice(); a.Text != "" {
			c.Advice = (*control.Advice)(&a)
		}
		s.Pools = append(s.Pools, c)
	}
	s.Proofs = d.proofs.Known()
	if n := d.networkStatus(); n.State != "off" {
		sum := n.Summary()
		s.Network = &sum
	}
	s.Plugins, err = d.plugins.Status()
	if err != nil {
		s.PluginsError = err.Error()
	} else if d.boot.Plugins.EngineAPI {
		s.EngineSocket = d.boot.EngineSocket()
	}
	return s, nil
}

// Reconcile implements [control.Daemon].
func (d *Daemon) Reconcile(ctx context.Context, progress func(control.Progress)) (control.Reconcile, error) {
	var sum control.Reconcile
	var errs []error
	pools := d.pools.All()
	for i, p := range pools {
		progress(control.Progress{Object: p.Conf.Name, Done: int64(i), Total: int64(len(pools))})
		errs = append(errs, reconcile(ctx, p, &sum))
	}
	return sum, errdefs.Join(errs...)
}

// reconcile adds what it does to sum. Mounts are looked at although the storage is out of
// reach.
func reconcile(ctx context.Context, p *pool.Pool, sum *control.Reconcile) error {
	if !p.Enter() {
		return nil // one that is new starts with it
	}
	defer p.Leave()
	err := p.Handler.RefreshNow(ctx)
	for _, line := range p.Handler.Reconcile(ctx) {
		sum.Changes = append(sum.Changes, fmt.Sprintf("pool %q: %s", p.Conf.Name, line))
	}
	nv, nm := p.Counts()
	sum.Volumes += nv
	sum.Mounts += nm
	if err != nil {
		return fmt.Errorf("pool %q: %w", p.Conf.Name, err)
	}
	return nil
}
