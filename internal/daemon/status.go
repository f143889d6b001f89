package daemon

import (
	"context"
	"fmt"
	"os"

	"github.com/remora-plugins/remora/internal/control"
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
	if err := d.confErr.Load(); err != nil {
		s.ConfigError = (*err).Error()
	}
	for _, p := range d.all() {
		c := control.Pool{Name: p.conf.Name, Driver: p.conf.Driver, Socket: p.door.addr, Reachable: true}
		c.Volumes, c.Mounted = p.counts()
		c.Trash = p.keepsTrash()
		if err := p.reachable(); err != nil {
			c.Reachable, c.Error = false, err.Error()
		}
		if a := p.advice(); a.Text != "" {
			c.Advice = (*control.Advice)(&a)
		}
		s.Pools = append(s.Pools, c)
	}
	s.Proofs = d.proofs.list(conf.Repositories)
	return s, nil
}

// Reconcile implements [control.Daemon].
func (d *Daemon) Reconcile(ctx context.Context, progress func(control.Progress)) (control.Reconcile, error) {
	var sum control.Reconcile
	var errs []error
	pools := d.all()
	for i, p := range pools {
		progress(control.Progress{Object: p.conf.Name, Done: int64(i), Total: int64(len(pools))})
		errs = append(errs, p.reconcile(ctx, &sum))
	}
	return sum, join(errs...)
}

// reconcile adds what it does to sum. Mounts are looked at although the storage is out of
// reach.
func (p *pool) reconcile(ctx context.Context, sum *control.Reconcile) error {
	if !p.enter() {
		return nil // one that is new starts with it
	}
	defer p.leave()
	err := p.handler.RefreshNow(ctx)
	for _, line := range p.handler.Reconcile(ctx) {
		sum.Changes = append(sum.Changes, fmt.Sprintf("pool %q: %s", p.conf.Name, line))
	}
	nv, nm := p.counts()
	sum.Volumes += nv
	sum.Mounts += nm
	if err != nil {
		return fmt.Errorf("pool %q: %w", p.conf.Name, err)
	}
	return nil
}
