package daemon

import (
	"context"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/pause"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/backups"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/projects"
	"github.com/remora-plugins/remora/internal/service/proof"
	"github.com/remora-plugins/remora/internal/service/restore"
	"github.com/remora-plugins/remora/internal/service/schedules"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/internal/service/volumes"
)

// services are what people can have done with volumes, above the drivers.
type services struct {
	fills     *fill.Fills
	protected volumes.Protected
	volumes   *volumes.Service
	backups   *backups.Service
	restores  *restore.Service
	proofs    *proof.Service
	schedules *schedules.Service
	projects  *projects.Service
	pauser    *pause.Pauser
}

// openServices makes the services, with what they remember in the state directory.
func (d *Daemon) openServices(ctx context.Context) {
	stateDir, parallel := d.boot.StateDir, d.boot.Backup.Parallel
	repositories := func() []config.Repository { return d.conf.Load().Repositories }
	take := snapshot.Taker{Hooks: func(ctx context.Context, e hook.Event) (func(context.Context) error, error) {
		return d.hooks.Begin(ctx, d.hooksNow(), e)
	}}
	d.fills = fill.Open(filepath.Join(stateDir, "fills"), d.log)
	d.protected = volumes.NewProtected(stateDir)
	d.backups = backups.New(backups.Options{
		Pools: &d.pools, Snapshots: take, Repositories: repositories, StateDir: stateDir, Life: d.life, Log: d.log,
	})
	d.restores = restore.New(restore.Options{
		Pools: &d.pools, Backups: d.backups, Fills: d.fills, MayRemove: d.protected.MayRemove, CreateWait: d.options.CreateWait, Life: d.life, Log: d.log,
	})
	d.proofs = proof.New(ctx, proof.Options{
		Pools: &d.pools, Backups: d.backups, Fills: d.fills, Engines: d.engines, StateDir: stateDir, Log: d.log,
		Verifies: func() []config.Verify { return d.conf.Load().Verifies },
	})
	d.schedules = schedules.New(schedules.Options{
		Pools: &d.pools, Backups: d.backups, Snapshots: take, Fills: d.fills, Engines: d.engines, StateDir: stateDir, Log: d.log,
		Configured: func() []schedule.Schedule { return d.conf.Load().Schedules },
	}, schedule.NewEngine(d.log, parallel, d.metrics.ran))
	d.volumes = volumes.New(volumes.Options{
		Pools: &d.pools, Fills: d.fills, Snapshots: take, Protected: d.protected, LastBackups: d.backups.AddLast, Asks: d.schedules.Of,
		Engines: d.engines, Life: d.life, Log: d.log,
	})
	d.pauser = pause.New(ctx, filepath.Join(stateDir, "paused"), d.log)
	d.projects = projects.New(projects.Options{
		Pools: &d.pools, Backups: d.backups, Snapshots: take, Engines: d.engines, Pauser: d.pauser, Parallel: parallel, Log: d.log,
	})
}

// The parts of the control API that have one method.
type (
	scheduler interface{ control.Schedules }
	restorer  interface {
		Restore(ctx context.Context, req control.BackupRestoreRequest, progress func(control.Progress)) (control.BackupRestore, error)
	}
	prover interface {
		Prove(ctx context.Context, req control.BackupListRequest, progress func(control.Progress)) (control.BackupProofs, error)
	}
)

// storage answers what the control API asks beyond the plugin protocol.
func (d *Daemon) storage() control.Storage {
	return struct {
		*volumes.Service
		scheduler
	}{d.volumes, d.schedules}
}

// archive answers what the control API asks about backups.
func (d *Daemon) archive() control.Backups {
	return struct {
		*backups.Service
		restorer
		prover
	}{d.backups, d.restores, d.proofs}
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

// schedule has the schedules of the configuration in force run in the pools that there are. It
// is called while no others come and go.
func (d *Daemon) schedule() {
	if d.life.Err() != nil {
		return // else it would be in the way of the stop
	}
	for _, s := range d.conf.Load().Schedules {
		d.metrics.runs.WithLabelValues(s.Name, result(nil)) // 0, and not nothing, before the first
	}
	d.schedules.Run(d.life)
}
