package loop

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// OpenSnapshot mounts the image of a snapshot for reading. The device can be written to, so
// that the file system replays its log, as it would have after a power cut at that moment.
func (d *cloning) OpenSnapshot(ctx context.Context, name, snapshot, target string) (string, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return "", err
	}
	defer p.close()
	f, err := p.facts(name)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(target) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "target %q: not an absolute path", target)
	}
	image, err := d.snapshotImage(p, name, snapshot)
	if err != nil {
		return "", err
	}
	defer image.Close()
	if at, err := mountAt(target); err != nil {
		return "", err
	} else if at != nil {
		if f.Whole || at.Root != "/" {
			return target, nil
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return "", d.Fail(name, err)
		}
	}
	inside, err := d.enter(ctx, name, image, f, []string{"ro"})
	if err != nil {
		return "", err
	}
	defer inside.close()
	if err := inside.Attach(f.dir(), target); err != nil {
		return "", err
	}
	return target, nil
}

// CloseSnapshot unmounts it.
func (d *cloning) CloseSnapshot(_ context.Context, _, _, dir string) error {
	return d.unmount(dir)
}

// Rollback makes a file that shares the blocks of the snapshot, and renames it to be the
// image. The volume stays as large as it is; the next mount grows the file system.
func (d *cloning) Rollback(ctx context.Context, name, snapshot string) error {
	p, f, image, err := d.volume(ctx, name)
	if err != nil {
		return err
	}
	defer p.close()
	defer image.Close()
	source, err := d.snapshotImage(p, name, snapshot)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := released(ctx, image); err != nil {
		return err
	}
	was, err := image.Stat()
	if err != nil {
		return d.Fail(name, err)
	}
	temp := name + "/" + newImageName
	defer func() { _ = p.Remove(temp) }()
	made, err := p.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return d.Fail(temp, err)
	}
	defer made.Close()
	if err := d.frozen(ctx, source, func() error { return share(made, source) }); err != nil {
		return d.Fail(name, cannotShare(err))
	}
	fi, err := made.Stat()
	if err != nil {
		return d.Fail(name, err)
	}
	if fi.Size() < was.Size() {
		if err := extend(made, fi.Size(), was.Size(), f.Reserved); err != nil {
			return d.Fail(name, err)
		}
	}
	if err := made.Sync(); err != nil {
		return d.Fail(name, err)
	}
	if err := p.Rename(temp, name+"/"+imageName); err != nil {
		return d.Fail(name, err)
	}
	if err := state.SyncDir(p.Root, name); err != nil {
		return d.Fail(name, err)
	}
	return nil
}
