package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func projectFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("project", "", "all volumes of the Compose `project`")
}

// alone refuses a flag that says nothing beside --project, and a project without a name.
func alone(cmd *cobra.Command, project, other string) error {
	switch {
	case !cmd.Flags().Changed("project"):
		return nil
	case project == "":
		return usageError(cmd, errors.New("--project is empty"))
	case cmd.Flags().Changed(other):
		return usageError(cmd, errors.New("--project and --"+other+": want one of them; the volumes of a project are where they are"))
	}
	return nil
}

func (a *app) snapshotProject(ctx context.Context, c *control.Client, req control.ProjectSnapshotRequest) error {
	made, err := c.Projects().Snapshot(ctx, req)
	if err != nil {
		return err
	}
	if n := len(made.Snapshots); n > 1 {
		a.sayf("project %q: %d snapshots, all within %s\n", req.Project, n, within(made.ProjectSum))
	}
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
	}
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

// within is how far apart snapshots are.
func within(sum control.ProjectSum) time.Duration {
	return max(time.Duration(sum.Within).Round(time.Millisecond), time.Millisecond)
}
