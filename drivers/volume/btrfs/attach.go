package btrfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// attach makes sure that the image is mounted at its mountpoint. One that is mounted there
// already, by a process before this one, is used as it is.
func (d *driver) attach(ctx context.Context) error {
	im := d.image
	if err := os.MkdirAll(im.mountpoint, passMode); err != nil {
		return state.Classify(err)
	}
	unlock, err := lockFile(ctx, im.mountpoint+".lock")
	if err != nil {
		return pooldir.Classify(err)
	}
	defer unlock()
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.closed {
		return errdefs.Errorf(errdefs.ErrUnavailable, "the pool is closed")
	}
	if err := im.checkSize(); err != nil {
		return err
	}
	known, err := d.Memo.Read(im.path)
	if err != nil {
		return err
	}
	file, err := im.open(ctx, known != "")
	if err == nil {
		// Not the same open file: the loop device keeps that, with its locks.
		var below *os.File
		if below, err = os.OpenFile(im.path, os.O_RDWR|unix.O_NOFOLLOW, 0); err == nil {
			err = d.mountImage(ctx, file, below)
			_ = below.Close()
		}
		if err != nil {
			_ = file.Close()
		}
	}
	if err != nil {
		if err = pooldir.Classify(err); errdefs.Class(err) == nil {
			err = errdefs.As(errdefs.ErrUnavailable, err)
		}
		return fmt.Errorf("image %s: %w", im.path, err)
	}
	if im.file != nil {
		_ = im.file.Close()
	}
	im.file = file
	return nil
}

// mountImage mounts the image that is open, unless it is, and grows it to its size. below is
// the same file, opened again for the loop device.
func (d *driver) mountImage(ctx context.Context, file, below *os.File) error {
	im := d.image
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return errdefs.Errorf(errdefs.ErrInUse, "another process has it")
	}
	if err := im.enlarge(file); err != nil {
		return err
	}
	mounts, err := mount.List(im.mountpoint)
	if err != nil {
		return err
	}
	var dev *os.File
	for _, m := range mounts {
		if m.Mountpoint != im.mountpoint {
			continue
		}
		if dev != nil {
			_ = dev.Close()
			dev = nil
		}
		if isLoop(m.Source) {
			if dev, err = os.OpenFile(m.Source, os.O_RDWR, 0); err != nil {
				return err
			}
		}
		if dev == nil || !loopHas(dev, file) {
			err := errdefs.Errorf(errdefs.ErrUnavailable, "%s from %s is mounted at its mountpoint %s", m.FSType, m.Source, im.mountpoint)
			if dev != nil {
				_ = dev.Close()
			}
			return errdefs.Hint(err, "umount "+im.mountpoint)
		}
	}
	if dev == nil {
		if dev, err = loopOf(ctx, below); err != nil {
			return err
		}
		if err = mountBtrfs(dev.Name(), im.mountpoint); err != nil {
			_ = dev.Close()
			return err
		}
		if err := os.Chmod(im.mountpoint, passMode); err != nil && !errors.Is(err, unix.EROFS) {
			d.Log.WarnContext(ctx, "the pool keeps its mode", slog.Any("error", err))
		}
		d.warnSparse(ctx, file)
	}
	defer dev.Close()
	return im.grow(file, dev)
}

// mountBtrfs mounts without times of access, each of which would copy a block that snapshots
// share, and gives room that was freed back to the host's file system.
func mountBtrfs(device, target string) error {
	err := mount.Mount(device, target, "btrfs", unix.MS_NOATIME, "discard=async")
	if errors.Is(err, unix.EINVAL) { // before Linux 5.6
		err = mount.Mount(device, target, "btrfs", unix.MS_NOATIME, "")
	}
	return err
}

// warnSparse says when the image could outgrow the disk it lies on: the file system on it
// would meet errors that it does not expect, and become read-only.
func (d *driver) warnSparse(ctx context.Context, file *os.File) {
	var st unix.Stat_t
	free, err := freeBelow(filepath.Dir(d.image.path))
	if err != nil || unix.Fstat(int(file.Fd()), &st) != nil {
		return
	}
	if missing := st.Size - st.Blocks*512; missing > free {
		d.Log.WarnContext(ctx, "the image can become larger than its disk has room for",
			slog.String("image", d.image.path), slog.Any("wants", catalog.Bytes(missing)), slog.Any("free", catalog.Bytes(free)))
	}
}

// detachTime bounds how long an end waits for another process that opens the pool.
const detachTime = 10 * time.Second

// detach unmounts the image if no volume is used by anybody. Containers run on without the
// daemon, so one that is used stays mounted.
func (d *driver) detach() error {
	im := d.image
	ctx, cancel := context.WithTimeout(context.Background(), detachTime) //nolint:forbidigo // Close has no context
	defer cancel()
	unlock, err := lockFile(ctx, im.mountpoint+".lock")
	if err != nil {
		return pooldir.Classify(err)
	}
	defer unlock()
	im.mu.Lock()
	defer im.mu.Unlock()
	im.closed = true
	if im.file == nil {
		return nil
	}
	defer func() {
		_ = im.file.Close()
		im.file = nil
	}()
	if unix.Flock(int(im.file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // another driver has it, as in a reload
	}
	d.mu.Lock()
	used := len(d.mounted) > 0
	d.mu.Unlock()
	if used || usedBelow(im.mountpoint) {
		return nil
	}
	if err := mount.Unmount(im.mountpoint); err != nil && !errors.Is(err, errdefs.ErrInUse) {
		return err
	}
	_ = unix.Rmdir(im.mountpoint) // not where it is mounted still
	return nil
}

// initialPIDNamespace is what /proc/self/ns/pid names on the host itself. Elsewhere /proc
// does not show the containers of an engine outside.
const initialPIDNamespace = "pid:[4026531836]"

// usedBelow tells whether a part of the file system at mountpoint, such as the data of a
// volume, is mounted anywhere in any process's mount table, and whether that is unknown.
func usedBelow(mountpoint string) bool {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initialPIDNamespace {
		return true
	}
	at, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(mountpoint))
	if err != nil {
		return true
	}
	if len(at) == 0 {
		return false
	}
	part := func(m *mountinfo.Info) (skip, stop bool) {
		return m.Major != at[0].Major || m.Minor != at[0].Minor || m.Root == at[0].Root, false
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	seen := map[string]bool{}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		ns, err := os.Readlink("/proc/" + p.Name() + "/ns/mnt")
		if vanished(err) || seen[ns] || p.Name() == "1" && errors.Is(err, unix.EACCES) {
			continue // the host's own init, which may be out of sight, is no container
		}
		if err != nil {
			return true
		}
		table, err := os.Open("/proc/" + p.Name() + "/mountinfo")
		if vanished(err) {
			continue
		}
		if err != nil {
			return true
		}
		found, err := mountinfo.GetMountsFromReader(table, part)
		_ = table.Close()
		if len(found) > 0 {
			return true
		}
		seen[ns] = err == nil
	}
	return false
}

// vanished tells that err means a process which ended while it was looked at. A zombie has
// no namespaces any more and answers with EINVAL.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// lockFile gets a lock that one process has at a time, and waits for it as long as ctx says.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = file.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
