package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// besidePrefix begins the names of volumes in which the new content of another is made.
const besidePrefix = "remora-restore-"

// inPlace makes a volume what it was in a backup. Where the driver has a trash, the new content
// is made beside the old and takes its place when it is whole; the old is in the trash then.
// Elsewhere all of the backup is read before the first old file goes.
func (s restoring) inPlace(ctx context.Context, purge bool, c *control.BackupRestore) error {
	name := s.one.Volume
	v, err := s.p.Handler.Get(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.Hint(err, "restore it to a new volume: --to "+name)
	}
	if err != nil {
		return err
	}
	if err := s.v.MayRemove(s.p.Conf.Name)(ctx, name); err != nil {
		return fmt.Errorf("volume %q: %w", name, err)
	}
	if s.p.KeepsTrash() && !v.External && !purge {
		c.Kept, err = s.swap(ctx, v)
		return err
	}
	switch {
	case purge:
	case v.External && v.Mountpoint != "":
		c.Warnings = append(c.Warnings, fmt.Sprintf("volume %q: its data lies at %s, outside of the trash: what was in it is not kept", name, v.Mountpoint))
	case volume.Can[volume.Trasher](s.p.Handler):
		c.Warnings = append(c.Warnings, fmt.Sprintf("volume %q: pool %q keeps no trash: what was in it is not kept", name, s.p.Conf.Name))
	default:
		c.Warnings = append(c.Warnings, fmt.Sprintf("volume %q: the driver %q has no trash: what was in it is not kept", name, s.p.Conf.Driver))
	}
	return s.over(ctx, v)
}

// unmounted refuses a volume that somebody uses.
func unmounted(ctx context.Context, p *pool.Pool, name string, ours int) error {
	v, err := p.Handler.Get(ctx, name)
	if err == nil && len(v.Mounts) > ours {
		err = errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "volume %q: mounted %d times", name, len(v.Mounts)-ours), "stop the containers that use it first")
	}
	return err
}

// swap restores into a volume beside, which takes the place of the old, and returns the ID that
// the old has in the trash.
func (s restoring) swap(ctx context.Context, v volume.Volume) (kept string, err error) {
	beside := besidePrefix + strings.ToLower(rand.Text()[:10])
	f, err := s.begin(v.Name, fill.InPlace, beside)
	if err != nil {
		return "", err
	}
	defer func() { f.Stopped(err) }()
	if err = unmounted(ctx, s.p, v.Name, 0); err != nil {
		return "", errdefs.Join(err, f.Abandon())
	}
	err = s.p.Handler.Create(f.Context(ctx), beside, LikeOptions(v))
	if err == nil {
		err = sameLimit(f.Context(ctx), s.p, v.Name, beside)
	}
	if err == nil {
		err = s.fill(ctx, f, beside, fill.Empty)
	}
	if err != nil {
		err = fmt.Errorf("the volume is left as it is: %w", err)
		return "", errdefs.Join(err, Discard(ctx, s.p, f, beside))
	}
	if err = f.Change(func(facts *fill.Facts) { facts.Whole = true }); err != nil {
		return "", errdefs.Join(err, Discard(ctx, s.p, f, beside))
	}
	if err = takePlace(context.WithoutCancel(ctx), s.p, f); err != nil {
		return "", err
	}
	all, terr := s.p.Handler.Trashed(ctx)
	for _, t := range all {
		if t.Name == v.Name {
			kept = t.ID // the oldest come first
		}
	}
	return kept, terr
}

// takePlace gives the volume beside, which is whole, the name of the old one. Where the old is in
// use, or protected by now, or the trash has no room, the one beside is given up.
func takePlace(ctx context.Context, p *pool.Pool, f *fill.Fill) error {
	err := p.Handler.Replace(f.Context(ctx), f.Name, f.Beside)
	switch {
	case err == nil:
		return f.End()
	case errors.Is(err, errdefs.ErrNotFound): // it has been done, or there never was one beside
		_, gerr := p.Handler.Get(ctx, f.Name)
		if gerr == nil {
			return f.End()
		}
		return errdefs.Join(err, gerr)
	case errors.Is(err, errdefs.ErrInUse), errors.Is(err, errdefs.ErrDenied), noRoom(err) && there(ctx, p, f.Name):
		return errdefs.Join(fmt.Errorf("the volume is left as it is: %w", err), giveUp(ctx, p, f))
	}
	return err // tried again
}

// noRoom tells of an error that nobody could get over while the volume beside takes as much room as the
// old one, which nobody could use or remove meanwhile.
func noRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// there tells whether a volume certainly is there, whatever was known of it.
func there(ctx context.Context, p *pool.Pool, name string) bool {
	if err := p.Handler.RefreshNow(ctx); err != nil {
		return false
	}
	_, err := p.Handler.Get(ctx, name)
	return err == nil
}

// giveUp destroys the volume beside, wherever it is, and forgets the fill.
func giveUp(ctx context.Context, p *pool.Pool, f *fill.Fill) error {
	ctx = context.WithoutCancel(ctx)
	all, err := p.Handler.Trashed(ctx)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.Name == f.Beside {
			err = errdefs.Join(err, p.Handler.Purge(ctx, t.ID))
		}
	}
	if err != nil {
		return err
	}
	return Discard(ctx, p, f, f.Beside)
}

// LikeOptions are those with which a volume is made that is to be as v, and empty.
func LikeOptions(v volume.Volume) map[string]string {
	opts := maps.Clone(v.Options)
	delete(opts, pool.CloneOption)
	return opts
}

// sameLimit gives a volume the limit that another one has, which may have been resized.
func sameLimit(ctx context.Context, p *pool.Pool, like, name string) error {
	if !volume.Can[volume.Sizer](p.Handler) || !volume.Can[volume.Resizer](p.Handler) {
		return nil
	}
	was, err := p.Handler.Usage(ctx, like)
	if err != nil || was.Limit == 0 {
		return nil //nolint:nilerr // a limit that is not known cannot be given
	}
	if is, err := p.Handler.Usage(ctx, name); err == nil && is.Limit == was.Limit {
		return nil
	}
	return p.Handler.Resize(ctx, name, was.Limit)
}

// over replaces what is in a volume, and keeps nothing. Cut off, it leaves a volume that is not
// used until it is restored again.
func (s restoring) over(ctx context.Context, v volume.Volume) (err error) {
	checked, err := backup.Verify(ctx, s.place, []string{s.one.ID}, nil)
	if err != nil {
		return err
	}
	if len(checked.Damaged) > 0 {
		return fmt.Errorf("backup %.12s: damaged, and the volume is left as it is: %w", s.one.ID, checked.Damaged[0].Err)
	}
	f, err := s.begin(v.Name, fill.Over, "")
	if err != nil {
		return err
	}
	defer func() { f.Stopped(err) }()
	if err = unmounted(ctx, s.p, v.Name, 0); err != nil {
		return errdefs.Join(err, f.Abandon())
	}
	touched := false
	err = s.fill(ctx, f, v.Name, func(dir string) error {
		if err := unmounted(ctx, s.p, v.Name, 1); err != nil {
			return err
		}
		touched = true
		return fill.Clear(dir)
	})
	if err == nil {
		return f.End()
	}
	if !touched {
		return errdefs.Join(err, f.Abandon())
	}
	return errdefs.Join(err, f.Change(func(facts *fill.Facts) { facts.Error = errdefs.OneLine(err.Error()) }))
}
