package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Remove renames the volume to a hidden name, which is the moment at which it is gone,
// and destroys it there. What a crash or an impatient caller leaves is destroyed later.
func (d *driver) Remove(ctx context.Context, name string) error {
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.facts(name); err != nil {
		return err
	}
	if err := p.nothingMounted(name); err != nil {
		return err
	}
	return d.destroy(ctx, p, name)
}

// destroy takes a directory of the pool away in the manner of Remove.
func (d *driver) destroy(ctx context.Context, p *pool, path string) error {
	gone := hidden(goneKind)
	err := unix.Renameat(p.fd, path, p.fd, gone)
	if errors.Is(err, unix.ENOENT) {
		return errNoVolume // another process was faster
	}
	if err != nil {
		return d.fail(path, err)
	}
	if err := p.dir.Sync(); err != nil {
		return d.fail("", err)
	}
	if err := p.demolish(ctx, gone); err != nil {
		d.sweep(ctx, []string{gone})
	}
	return nil
}

// nothingMounted looks for mounts in the directory of a volume: what is mounted there is
// used, or would be destroyed with it.
func (p *pool) nothingMounted(name string) error {
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.fd)) // the kernel's own name for it
	if err != nil {
		return err
	}
	mounts, err := mount.List(real + "/" + name)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		m := mounts[len(mounts)-1]
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "%s is mounted on %s", m.FSType, m.Mountpoint), "umount "+m.Mountpoint)
	}
	return nil
}

// maxDepth bounds how deep subvolumes and directories around them are nested that are
// destroyed.
const maxDepth = 64

// demolish destroys what has the name in the pool, which may be nothing: subvolumes whole,
// other directories entry by entry.
func (p *pool) demolish(ctx context.Context, name string) error {
	if err := p.nothingMounted(name); err != nil {
		return err
	}
	if err := demolish(ctx, p.fd, name, 0); err != nil {
		return fmt.Errorf("destroy %s: %w", name, err)
	}
	return nil
}

func demolish(ctx context.Context, parent int, name string, depth int) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if depth > maxDepth {
		return unix.ELOOP
	}
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := openDir(parent, name)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	if isSubvol(fd) {
		return gone(subvolDestroy(parent, name))
	}
	for {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		entries, err := dir.Readdirnames(512)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for _, entry := range entries {
			if err := demolish(ctx, fd, entry, depth+1); err != nil {
				return fmt.Errorf("%s: %w", entry, err)
			}
		}
		if len(entries) == 0 {
			return gone(unix.Unlinkat(parent, name, unix.AT_REMOVEDIR))
		}
	}
}

// gone makes an error of nothing where somebody else was faster.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
