package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/control"
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
	v, err := s.p.handler.Get(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.Hint(err, "restore it to a new volume: --to "+name)
	}
	if err != nil {
		return err
	}
	if err := s.d.protected().mayRemove(s.p.conf.Name)(ctx, name); err != nil {
		return fmt.Errorf("volume %q: %w", name, err)
	}
	if s.p.keepsTrash() && !v.External && !purge {
		c.Kept, err = s.swap(ctx, v)
		return err
	}
	switch {
	case purge:
	case v.External && v.Mountpoint != "":
		c.Warnings = append(c.Warnings, fmt.Sprintf("volume %q: its data lies at %s, outside of the trash: what was in it is not kept", name, v.Mountpoint))
	case volume.Can[volume.Trasher](s.p.handler):
		c.Warnings = append(c.Warnings, fmt.Sprintf("volume %q: pool %q keeps no trash: what was in it is not kept", name, s.p.conf.Name))
	default:
		c.Warnings = append(c.Warnings, fmt.Sprintf("volume %q: the driver %q has no trash: what was in it is not kept", name, s.p.conf.Driver))
	}
	return s.over(ctx, v)
}

// unmounted refuses a volume that somebody uses.
func (p *pool) unmounted(ctx context.Context, name string, ours int) error {
	v, err := p.handler.Get(ctx, name)
	if err == nil && len(v.Mounts) > ours {
		err = errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "volume %q: mounted %d times", name, len(v.Mounts)-ours), "stop the containers that use it first")
	}
	return err
}

// swap restores into a volume beside, which takes the place of the old, and returns the ID that
// the old has in the trash.
func (s restoring) swap(ctx context.Context, v volume.Volume) (kept string, err error) {
	beside := besidePrefix + strings.ToLower(rand.Text()[:10])
	f, err := s.begin(v.Name, fillInPlace, beside)
	if err != nil {
		return "", err
	}
	defer func() { f.stopped(err) }()
	if err = s.p.unmounted(ctx, v.Name, 0); err != nil {
		return "", join(err, f.abandon())
	}
	err = s.p.handler.Create(f.context(ctx), beside, likeOptions(v))
	if err == nil {
		err = s.p.sameLimit(f.context(ctx), v.Name, beside)
	}
	if err == nil {
		err = s.fill(ctx, f, beside, empty)
	}
	if err != nil {
		err = fmt.Errorf("the volume is left as it is: %w", err)
		return "", join(err, s.p.discard(ctx, f, beside))
	}
	if err = f.change(func(facts *fillFacts) { facts.Whole = true }); err != nil {
		return "", join(err, s.p.discard(ctx, f, beside))
	}
	if err = s.p.takePlace(context.WithoutCancel(ctx), f); err != nil {
		return "", err
	}
	all, terr := s.p.handler.Trashed(ctx)
	for _, t := range all {
		if t.Name == v.Name {
			kept = t.ID // the oldest come first
		}
	}
	return kept, terr
}

// takePlace gives the volume beside, which is whole, the name of the old one. Where the old is in
// use, or protected by now, the one beside is given up.
func (p *pool) takePlace(ctx context.Context, f *fill) error {
	err := p.handler.Replace(f.context(ctx), f.name, f.Beside)
	switch {
	case err == nil:
		return f.end()
	case errors.Is(err, errdefs.ErrNotFound): // it has been done, or there never was one beside
		_, gerr := p.handler.Get(ctx, f.name)
		if gerr == nil {
			return f.end()
		}
		return join(err, gerr)
	case errors.Is(err, errdefs.ErrInUse), errors.Is(err, errdefs.ErrDenied):
		return join(fmt.Errorf("the volume is left as it is: %w", err), p.giveUp(ctx, f))
	}
	return err // tried again
}

// giveUp destroys the volume beside, wherever it is, and forgets the fill.
func (p *pool) giveUp(ctx context.Context, f *fill) error {
	ctx = context.WithoutCancel(ctx)
	all, err := p.handler.Trashed(ctx)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.Name == f.Beside {
			err = join(err, p.handler.Purge(ctx, t.ID))
		}
	}
	if err != nil {
		return err
	}
	return p.discard(ctx, f, f.Beside)
}

// likeOptions are those with which a volume is made that is to be as v, and empty.
func likeOptions(v volume.Volume) map[string]string {
	opts := maps.Clone(v.Options)
	delete(opts, cloneOption)
	return opts
}

// sameLimit gives a volume the limit that another one has, which may have been resized.
func (p *pool) sameLimit(ctx context.Context, like, name string) error {
	if !volume.Can[volume.Sizer](p.handler) || !volume.Can[volume.Resizer](p.handler) {
		return nil
	}
	was, err := p.handler.Usage(ctx, like)
	if err != nil || was.Limit == 0 {
		return nil //nolint:nilerr // a limit that is not known cannot be given
	}
	if is, err := p.handler.Usage(ctx, name); err == nil && is.Limit == was.Limit {
		return nil
	}
	return p.handler.Resize(ctx, name, was.Limit)
}

// over replaces what is in a volume, and keeps nothing. Cut off, it leaves a volume that is not
// used until it is restored again.
func (s restoring) over(ctx context.Context, v volume.Volume) (err error) {
	checked, err := backup.Verify(ctx, s.place, []string{s.one.ID}, nil)
	if err != nil {
		return err
	}
	if len(checked.Damaged) > 0 {
		return fmt.Errorf("backup %.8s: damaged, and the volume is left as it is: %w", s.one.ID, checked.Damaged[0].Err)
	}
	f, err := s.begin(v.Name, fillOver, "")
	if err != nil {
		return err
	}
	defer func() { f.stopped(err) }()
	if err = s.p.unmounted(ctx, v.Name, 0); err != nil {
		return join(err, f.abandon())
	}
	touched := false
	err = s.fill(ctx, f, v.Name, func(dir string) error {
		if err := s.p.unmounted(ctx, v.Name, 1); err != nil {
			return err
		}
		touched = true
		return removeAll(dir)
	})
	if err == nil {
		return f.end()
	}
	if !touched {
		return join(err, f.abandon())
	}
	return join(err, f.change(func(facts *fillFacts) { facts.Error = errdefs.OneLine(err.Error()) }))
}
