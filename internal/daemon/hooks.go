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

// openHooks makes ready what runs hooks.
func (d *Daemon) openHooks() {
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

// still has read look at a volume as it is at one moment, if the driver can: at a snapshot that
// has been made for it, or at one of its own. Any other is read as it lies there. The hooks are
// around the snapshot, or around all of the reading. What one after it came to is told beside.
func (p *pool) still(ctx context.Context, req control.BackupCreateRequest, from string, read func(ctx context.Context, dir string, still bool) error) (beside, err error) {
	if from != "" {
		return nil, p.readAndDrop(ctx, req.Name, from, read)
	}
	end, err := p.begin(ctx, req.Name, req.Labels)
	if err != nil {
		return nil, err
	}
	if !volume.Can[volume.SnapshotOpener](p.handler) {
		err := p.mounted(ctx, req.Name, func(ctx context.Context, dir string) error { return read(ctx, dir, false) })
		return end(context.WithoutCancel(ctx)), err
	}
	from, err = p.snapshotForBackup(ctx, req.Name)
	beside = end(context.WithoutCancel(ctx))
	if err != nil {
		return nil, join(err, beside)
	}
	return beside, p.readAndDrop(ctx, req.Name, from, read)
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
	return snapshot, p.handler.CreateSnapshot(ctx, name, snapshot, nil)
}

// readAndDrop has read look at a snapshot, which is removed then.
func (p *pool) readAndDrop(ctx context.Context, name, snapshot string, read func(ctx context.Context, dir string, still bool) error) (err error) {
	defer func() {
		err = join(err, p.handler.RemoveSnapshot(context.WithoutCancel(ctx), name, snapshot))
	}()
	return p.handler.ReadSnapshot(ctx, name, snapshot, func(ctx context.Context, dir string) error { return read(ctx, dir, true) })
}
