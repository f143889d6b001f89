package block

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// cloning is what a job must not forget that makes a volume of another one.
type cloning struct {
	making
	// Source is the disk that it is made of; Temp the tags of a snapshot that is made for
	// that, and deleted again.
	Source *Disk
	Temp   Tags
}

// Clone makes a volume of another one, or of a snapshot of it.
func (d *snapshotting) Clone(ctx context.Context, name, from, snapshot string, opts map[string]string) error {
	source, err := d.recorded(ctx, from)
	if err != nil {
		return err
	}
	a, err := d.t.decode(opts)
	if err != nil {
		return err
	}
	if a.Snapshot != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "snapshot": the clone is of %q already`, from)
	}
	if a.FS != nil && source.Tags[tagFS] != "" && *a.FS != source.Tags[tagFS] {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "fs": what is cloned is %s, not %s`, source.Tags[tagFS], *a.FS)
	}
	s, err := d.spec(name, a)
	if err != nil {
		return err
	}
	size, tags := source.Size, source.Tags
	var sn *Snapshot
	if snapshot != "" {
		found, err := d.snapshotOf(ctx, source, snapshot)
		if err != nil {
			return err
		}
		sn, size, tags = &found, max(found.Size, d.t.MinSize), found.Tags
	}
	if a.Size == nil {
		s.Size = size
	} else if s.Size < size {
		return errdefs.Errorf(errdefs.ErrInvalid, `option "size": %s is below the %s of what is cloned`, catalog.Bytes(s.Size), catalog.Bytes(size))
	}
	if a.Type == nil {
		s.Type = source.Type
		if a.IOPS == nil {
			s.IOPS = source.IOPS
		}
		if a.Throughput == nil {
			s.Throughput = source.Throughput
		}
	}
	if a.Zone == nil {
		s.Zone = source.Zone
	}
	if a.Mount == nil && source.Tags[option+"mount_options"] != "" {
		s.Tags[option+"mount_options"] = source.Tags[option+"mount_options"]
	}
	inherit(s.Tags, tags)
	s.Tags[tagFrom] = Short(strings.TrimSuffix(from+"@"+snapshot, "@"))
	if err := d.check(&s); err != nil {
		return err
	}
	c := cloning{making: making{Spec: s, Fresh: true}}
	switch {
	case sn != nil:
		c.Spec.Snapshot = sn
	case d.t.Clones:
		c.Spec.Source = &source
	default:
		c.Source = &source
		c.Temp = d.snapshotTags(source, "clone")
		c.Temp[tagTemp] = Short("clone " + name)
	}
	return d.do(ctx, jobClone, name, "", c)
}

// inherit gives a new disk the record of formatting of what it is made of.
func inherit(to, from Tags) {
	for _, key := range []string{tagFS, tagFormatted, tagRoot} {
		delete(to, key)
		if from[key] != "" {
			to[key] = from[key]
		}
	}
}

// clone is the job.
func (d *driver) clone(ctx context.Context, r *jobs.Run) error {
	var c cloning
	if err := r.Load(&c); err != nil {
		return err
	}
	err := d.makeClone(ctx, r, &c)
	if c.Temp == nil || c.Spec.Snapshot == nil || d.ctx.Err() != nil { // it goes on at the next start
		return err
	}
	// Also of a clone that failed: nobody else knows of the snapshot. The time of the job may be up.
	ctx = context.WithoutCancel(ctx)
	if _, derr := again(ctx, r, just(func(ctx context.Context) error { return d.unshoot(ctx, *c.Spec.Snapshot) })); derr != nil {
		d.log.WarnContext(ctx, "the snapshot of which a clone was made is not deleted", slog.String("snapshot", c.Spec.Snapshot.ID), slog.Any("error", derr))
	}
	return err
}

func (d *driver) makeClone(ctx context.Context, r *jobs.Run, c *cloning) error {
	name := r.Object()
	if c.Spec.UUID == "" {
		if _, err := d.fresh(ctx, r, name); !errors.Is(err, errdefs.ErrNotFound) {
			if err == nil {
				err = errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name")
			}
			return err
		}
		if c.Source != nil && c.Spec.Snapshot == nil {
			sn, err := d.shoot(ctx, r, *c.Source, c.Temp)
			if err != nil {
				return err
			}
			c.Spec.Snapshot = &sn
			if err := r.Step("snapshot made", c); err != nil {
				return err
			}
		}
		if err := d.usable(ctx, r, c.Spec.Snapshot); err != nil {
			return err
		}
		if c.Source == nil && c.Spec.Source != nil {
			if err := d.flush(*c.Spec.Source); err != nil {
				return err
			}
		}
		c.Spec.UUID = newUUID()
		c.Spec.Tags[TagUUID] = c.Spec.UUID
		if err := r.Step("making the disk", c); err != nil {
			return err
		}
	}
	made, err := again(ctx, r, func(ctx context.Context) (Disk, error) { return d.p.Create(ctx, c.Spec) })
	if err == nil {
		d.x.put(made)
		err = d.ready(ctx, r, made, false)
	}
	return err
}

// usable waits until a disk can be made of a snapshot, nil for none.
func (d *driver) usable(ctx context.Context, r *jobs.Run, sn *Snapshot) error {
	if sn == nil || sn.State == Ready {
		return nil
	}
	now, err := d.complete(ctx, r, *sn, 0)
	if err == nil {
		*sn = now
	}
	return err
}
