package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// btrfsStartSync is BTRFS_IOC_START_SYNC, which does not wait.
const btrfsStartSync = 0x80089418

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// grow makes the file system as large as its image.
func (inside *entered) grow() error {
	size, err := inside.device.size()
	if err != nil {
		return err
	}
	if gap, err := inside.gap(size); err != nil || gap <= 0 {
		return err
	}
	top, err := inside.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	return inside.kind.Grow(top, size)
}

// gap returns by how much the file system is smaller than its device. For what finds that out
// itself, and changes nothing where there is nothing to do, it is all.
func (inside *entered) gap(size int64) (int64, error) {
	if inside.kind.Name != "ext4" {
		return size, nil
	}
	is, err := filesystem.Ext4Bytes(inside.device.f)
	return size - is, err
}

// resizeLimit is how long resize2fs may take. It must not be cut off before, whoever waits.
const resizeLimit = 10 * time.Minute

// growUnmounted grows a file system that this process alone has mounted, with programs, where
// the kernel would not: ext4 wants a capability that not every daemon has
// (CAP_SYS_RESOURCE).
func (inside *entered) growUnmounted(ctx context.Context, least int64) error {
	err := inside.grow()
	if !errors.Is(err, errdefs.ErrDenied) || inside.kind.Name != "ext4" {
		return err
	}
	if !inside.device.fresh {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "grow ext4 while it is mounted: not permitted"),
			"give the daemon the capability CAP_SYS_RESOURCE; without it the file system grows when it is next mounted")
	}
	size, err := inside.device.size()
	if err != nil {
		return err
	}
	if gap, err := inside.gap(size); err != nil || gap < least {
		return err
	}
	if err := inside.Close(); err != nil {
		return err
	}
	inside.Detached = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resizeLimit)
	defer cancel()
	err = inside.kind.GrowUnmounted(ctx, inside.device.path)
	m, derr := mount.Detach(inside.device.path, inside.kind.Name, inside.options)
	if derr != nil {
		return derr
	}
	inside.Detached = m
	return err
}

// size returns how large the device is.
func (v *device) size() (int64, error) {
	var n uint64
	if err := ioctl(v.f, unix.BLKGETSIZE64, unsafe.Pointer(&n)); err != nil {
		return 0, fmt.Errorf("%s: size: %w", v.path, err)
	}
	return int64(n), nil
}

// Resize makes the image larger, then the device that it may be on, then the file system. What
// a crash leaves undone of the last two is done by the next mount.
func (d *driver) Resize(ctx context.Context, name string, size int64) error {
	p, f, image, err := d.volume(ctx, name)
	if err != nil {
		return err
	}
	defer p.close()
	defer image.Close()
	fi, err := image.Stat()
	if err != nil {
		return d.Fail(name, err)
	}
	k := kinds[f.FS]
	if err := checkSize(k, size); err != nil {
		return err
	}
	size = roundUp(size)
	if size < fi.Size() {
		err := errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s that it has, and an image cannot be made smaller", catalog.Bytes(size), catalog.Bytes(fi.Size()))
		return errdefs.Hint(err, "make a smaller volume and copy the data")
	}
	if size > fi.Size() {
		if err := extend(image, fi.Size(), size, f.Reserved); err != nil {
			return d.Fail(name, err)
		}
		if f.Written {
			if err := writeOut(ctx, image, fi.Size(), size); err != nil {
				_ = image.Truncate(fi.Size())
				return d.Fail(name, err)
			}
		}
		if err := image.Sync(); err != nil {
			return d.Fail(name, err)
		}
	}
	inside, err := d.enter(ctx, name, image, f, nil)
	if err != nil {
		return err
	}
	defer inside.close()
	if err := inside.device.capacity(); err != nil {
		return d.Fail(name, err)
	}
	if err := inside.growUnmounted(ctx, 0); err != nil {
		return err
	}
	if f.Reserved { // what grew has zeroed its tables, which makes holes
		return d.Fail(name, reserveAll(image))
	}
	return nil
}

// Usage asks the file system while it is mounted. While it is not, what the image takes in the
// pool is the answer; blocks that were freed inside may still be among it.
func (d *driver) Usage(ctx context.Context, name string) (volume.Usage, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return volume.Usage{}, err
	}
	defer p.close()
	if _, err := p.facts(name); err != nil {
		return volume.Usage{}, err
	}
	image, err := p.Open(name + "/" + imageName)
	if err != nil {
		return volume.Usage{}, d.Fail(name+"/"+imageName, err)
	}
	defer image.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return volume.Usage{}, d.Fail(name, err)
	}
	u := volume.Usage{Used: st.Blocks * 512, Limit: st.Size}
	v, err := find(image)
	if errors.Is(err, errdefs.ErrInUse) || err == nil && v == nil {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	defer v.close()
	at, err := mountsOf(v.path)
	if err != nil || len(at) == 0 {
		return u, err
	}
	u.Used, err = usedIn(at[0])
	return u, d.Fail(name, err)
}

// usedIn asks a file system that is mounted.
func usedIn(at mount.Info) (int64, error) {
	dir, err := at.Open()
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	if at.FSType == "btrfs" { // counts when it commits, which may be half a minute away
		var transaction uint64
		_ = ioctl(dir, btrfsStartSync, unsafe.Pointer(&transaction))
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return 0, err
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize, nil
}
