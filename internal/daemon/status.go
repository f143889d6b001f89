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
		c := control.Pool{Name: p.conf.Name, Driver: p.conf.Driver, Socket: p.socket, Reachable: true}
		c.Volumes, c.Mounted = p.counts(ctx)
		if err := p.reachable(); err != nil {
			c.Reachable, c.Error = false, err.Error()
		}
		s.Pools = append(s.Pools, c)
	}
	return s, nil
}

// Reconcile implements [control.Daemon].
func (d *Daemon) Reconcile(ctx context.Context, progress func(control.Progress)) (control.Reconcile, error) {
	var sum control.Reconcile
	pools := d.all()
	for i, p := range pools {
		progress(control.Progress{Object: p.conf.Name, Done: int64(i), Total: int64(len(pools))})
		if err := p.handler.RefreshNow(ctx); err != nil {
			return sum, fmt.Errorf("pool %q: %w", p.conf.Name, err)
		}
		for _, line := range p.handler.Reconcile(ctx) {
			sum.Changes = append(sum.Changes, fmt.Sprintf("pool %q: %s", p.conf.Name, line))
		}
		nv, nm := p.counts(ctx)
		sum.Volumes += nv
		sum.Mounts += nm
	}
	return sum, nil
}
