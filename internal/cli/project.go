package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) snapshotProject(ctx context.Context, c *control.Client, req control.ProjectSnapshotRequest) error {
	made, err := c.Projects().Snapshot(ctx, req)
	if err != nil {
		return err
	}
	if n := len(made.Snapshots); n > 1 {
		a.sayf("project %q: %d snapshots, all within %s\n", req.Project, n, within(made.ProjectSum))
		a.sayMoments(req.Project, made.ProjectSum, req.Pause)
	}
	a.sayPaused(req.Project, made.ProjectSum)
	for _, s := range made.Snapshots {
		err = errors.Join(err, a.printf("%s@%s\n", s.Volume, s.Name))
		made.Errors = append(made.Errors, s.Errors...)
	}
	return a.ofProject(err, len(made.Snapshots), made.ProjectSum)
}

func (a *app) backupProject(ctx context.Context, req control.ProjectBackupRequest, f format) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	bar := a.bar()
	made, err := c.Projects().Backup(ctx, req, bar.show)
	bar.end()
	if err != nil {
		return err
	}
	if made.Within > 0 {
		a.sayf("project %q: snapshots all within %s\n", req.Project, within(made.ProjectSum))
		a.sayMoments(req.Project, made.ProjectSum, req.Pause)
	}
	a.sayPaused(req.Project, made.ProjectSum)
	for _, one := range made.Backups {
		a.warnOf(one)
		made.Errors = append(made.Errors, one.Errors...)
		if f != "json" {
			err = errors.Join(err, a.printBackup(one))
		}
	}
	if f == "json" {
		err = a.printJSON(made.Backups)
	}
	return a.ofProject(err, len(made.Backups), made.ProjectSum)
}

// ofProject tells what is left out and what went wrong, and makes the status of it: that of a
// failure where nothing was made at all.
func (a *app) ofProject(err error, made int, sum control.ProjectSum) error {
	for _, w := range sum.Warnings {
		a.sayf("warning: %s\n", w)
	}
	err = a.partly(err, sum.Errors)
	if f, ok := errors.AsType[failure](err); ok && f.status == exitPartly && made == 0 {
		return failure{exitFailed}
	}
	return err
}

// sayMoments says which snapshots are of one moment, and which are not. Where nobody could write meanwhile all agree.
func (a *app) sayMoments(project string, sum control.ProjectSum, paused bool) {
	for _, t := range sum.Together {
		a.sayf("project %q: at one moment, by pool %q: %s\n", project, t.Pool, strings.Join(t.Volumes, ", "))
	}
	if len(sum.Alone) > 0 && !paused {
		a.sayf("project %q: each at a moment of its own: %s\n", project, strings.Join(sum.Alone, ", "))
	}
}

// sayPaused says which containers were paused.
func (a *app) sayPaused(project string, sum control.ProjectSum) {
	if len(sum.Paused) > 0 {
		a.sayf("project %q: paused for %s: %s\n", project, round(sum.PausedFor), strings.Join(sum.Paused, ", "))
	}
}

// within is how far apart snapshots are.
func within(sum control.ProjectSum) time.Duration {
	return round(sum.Within)
}

func round(nanoseconds int64) time.Duration {
	return max(time.Duration(nanoseconds).Round(time.Millisecond), time.Millisecond)
}
