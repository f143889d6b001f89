package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// openHooks makes ready what runs hooks, and what volumes ask for.
func (d *Daemon) openHooks() {
	d.asked.dir = filepath.Join(d.boot.StateDir, "schedules")
	d.hooks.Dir, d.hooks.Engines, d.hooks.Log = filepath.Join(d.boot.StateDir, "hooks"), d.engines, d.log
}

// engines are those that may be asked.
func (d *Daemon) engines() []engine.Engine {
	c := d.boot.Engine
	if c.None {
		return nil
	}
	return engine.There(c.Sockets)
}

// hooksNow are those of the configuration in force.
func (d *Daemon) hooksNow() []hook.Hook { return d.conf.Load().Hooks }

func (d *Daemon) beginHooks(ctx context.Context, e hook.Event) (end func(context.Context) error, err error) {
	return d.hooks.Begin(ctx, d.hooksNow(), e)
}

// begin runs the hooks before a snapshot of a volume. Whose it is, its label tells.
func (p *pool) begin(ctx context.Context, name string, labels map[string]string) (end func(context.Context) error, err error) {
	return p.hooks(ctx, hook.Event{Pool: p.conf.Name, Volume: name, Schedule: labels[schedule.Label]})
}

// prepared is a volume around which the hooks are somebody else's matter, with a snapshot that has
// been made for a backup; it is empty where the driver can make none.
type prepared struct {
	snapshot string
}

// still has read look at a volume as it is at one moment, if the driver can: at the snapshot that
// has been prepared, or at one of its own. Any other is read as it lies there. The hooks are
// around the snapshot, or around all of the reading. What one after it came to is told beside.
func (p *pool) still(ctx context.Context, req control.BackupCreateRequest, from *prepared, read func(ctx context.Context, dir string, still bool) error) (beside, err error) {
	live := func(ctx context.Context, dir string) error { return read(ctx, dir, false) }
	still := func(ctx context.Context, dir string) error { return read(ctx, dir, true) }
	switch {
	case from != nil && from.snapshot != "":
		return nil, p.handler.ReadSnapshot(ctx, req.Name, from.snapshot, still)
	case from != nil:
		return nil, p.mounted(ctx, req.Name, live)
	}
	end, err := p.begin(ctx, req.Name, req.Labels)
	if err != nil {
		return nil, err
	}
	if !volume.Can[volume.SnapshotOpener](p.handler) {
		err := p.mounted(ctx, req.Name, live)
		return end(context.WithoutCancel(ctx)), err
	}
	snapshot, err := p.snapshotForBackup(ctx, req.Name)
	beside = end(context.WithoutCancel(ctx))
	if err != nil {
		return nil, join(err, beside)
	}
	defer func() {
		err = join(err, p.handler.RemoveSnapshot(context.WithoutCancel(ctx), req.Name, snapshot))
	}()
	return beside, p.handler.ReadSnapshot(ctx, req.Name, snapshot, still)
}

// snapshotForBackup makes a snapshot that is there for a backup alone.
func (p *pool) snapshotForBackup(ctx context.Context, name string) (string, error) {
	all, err := p.handler.Snapshots(ctx, name)
	if err != nil {
		return "", err
	}
	for _, s := range all { // what a crash has left
		if strings.HasPrefix(s.Name, snapshotPrefix) && time.Since(s.CreatedAt) > staleSnapshot {
			if err := p.handler.RemoveSnapshot(ctx, name, s.Name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return "", err
			}
		}
	}
	snapshot := snapshotPrefix + strings.ToLower(rand.Text()[:10])
	if err := p.handler.CreateSnapshot(ctx, name, snapshot, nil); err != nil {
		return "", err
	}
	return snapshot, nil
}
