package csi

import (
	"context"
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// OpenSnapshot makes a volume of the snapshot that nobody else sees, and mounts it to be read.
func (d *driver) OpenSnapshot(ctx context.Context, name, snapshot, target string) (string, error) {
	if !filepath.IsAbs(target) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "target %q: not an absolute path", target)
	}
	rec, err := d.visible(name)
	if err != nil {
		return "", err
	}
	if _, err := d.snapshotOf(rec, snapshot); err != nil {
		return "", err
	}
	hidden := hiddenAt(target)
	if there, err := d.standing(ctx, hidden, target); there {
		return target, err
	} else if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return "", err
	}
	if err := d.do(ctx, jobOpen, hidden, "", shooting{Volume: name, Snapshot: snapshot}); err != nil {
		return "", err
	}
	if err := d.bind(ctx, hidden, target); err != nil {
		return "", err
	}
	// Whatever the CSI driver makes of it, it cannot be written to here.
	if err := mount.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return "", errors.Join(err, d.CloseSnapshot(ctx, name, snapshot, target))
	}
	return target, nil
}

// hiddenAt is the name of the volume that is a snapshot opened at a path.
func hiddenAt(path string) string { return "snapshot " + digest("open", path) }

// openHidden is the job.
func (d *driver) openHidden(ctx context.Context, r *jobs.Run) error {
	var s shooting
	if err := r.Load(&s); err != nil {
		return err
	}
	if _, err := d.get(r.Object()); err == nil {
		return d.raise(ctx, r)
	}
	facts, err := d.facts(ctx, r)
	if err != nil {
		return err
	}
	rec, err := d.visible(s.Volume)
	if err != nil {
		return err
	}
	n, err := d.snapshotOf(rec, s.Snapshot)
	if err == nil {
		n, err = d.complete(ctx, r, n, facts, 0)
	}
	if err != nil {
		return err
	}
	made := d.copyOf(rec, n)
	made.Name, made.Hidden, made.ReadOnly = r.Object(), "an open snapshot of "+rec.Name, true
	if err := d.bear(ctx, r, made, facts); err != nil {
		return err
	}
	return d.raise(ctx, r)
}

// copyOf is the record of a volume that is to be made of a snapshot, and be as its own is.
func (d *driver) copyOf(rec record, n snapshot) record {
	c := rec
	c.Options, c.Created, c.Origin, c.Retain = nil, now(), created, false
	c.Lineage, c.CSIName = nonce(), nameOf(d.c.Namespace, "volume", rec.Name, nonce())
	c.Source = &source{Snapshot: n.ID, Size: max(n.Size, n.Capacity), Shown: rec.Name + "@" + n.Name}
	c.Required, c.Limit = max(n.Capacity, c.Source.Size), 0
	c.ID, c.Context, c.Capacity, c.Topology = "", nil, 0, nil
	c.Phase, c.Since, c.Doing, c.Node, c.Publish, c.Problem = phaseNew, now(), "", "", nil, ""
	c.Grow, c.GrowNode, c.Suspects, c.Replaced = 0, false, nil, nil
	if len(rec.Topology) > 0 {
		c.Requisite = rec.Topology
	}
	return c
}

// CloseSnapshot deletes the volume again.
func (d *driver) CloseSnapshot(ctx context.Context, _, _, dir string) error {
	hidden := hiddenAt(dir)
	if _, err := d.get(hidden); errors.Is(err, errdefs.ErrNotFound) {
		return unbind(dir, false)
	}
	if err := d.Unmount(ctx, hidden, dir); err != nil {
		return err
	}
	return d.do(ctx, jobClose, hidden, "", nil)
}
