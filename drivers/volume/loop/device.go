package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// mark is what our loop devices have as the name of their file. The kernel does not use it.
const mark = "remora"

// The sectors of a loop device. Only with large ones has the kernel direct I/O for an image that
// shares blocks with a snapshot on xfs, and for all on a disk with such sectors.
const (
	smallSector = 512
	largeSector = 4096
)

// sectorOf returns the sectors for an image: large ones, which every new file system is made for,
// unless what is in it was made for smaller ones.
func sectorOf(image *os.File) uint32 {
	size, ok := filesystem.Sector(image)
	if fi, err := image.Stat(); err != nil || fi.Size()%largeSector != 0 || ok && size < largeSector {
		return smallSector
	}
	return largeSector
}

// device is a loop device that is held open. The kernel takes it apart when the last one
// who holds it lets go: this process, or what is mounted from it.
type device struct {
	f     *os.File
	path  string
	fresh bool // it was made by this call, so nothing is mounted from it
}

func (v *device) close() { _ = v.f.Close() }

// attach returns a loop device for an image. One that a mount of ours holds is taken again:
// the kernel then gives out the file system that is mounted from it, and no second one over
// the same blocks. One that somebody else made is ErrInUse, and so is an image that another
// host has.
func attach(ctx context.Context, image *os.File) (*device, error) {
	v, err := find(image)
	if err != nil || v != nil {
		return v, err
	}
	if again := unstamped(image); again != nil {
		stamp(image)
		image = again
		defer again.Close()
	}
	if err := lock(ctx, image); err != nil {
		return nil, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "/dev/loop-control: this kernel has no loop devices"), "modprobe loop")
		}
		return nil, err
	}
	defer control.Close()
	for ctx.Err() == nil {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("/dev/loop-control: %w", err)
		}
		v, err := configure(n, image)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) {
			continue // somebody else was faster
		}
		return v, err
	}
	return nil, context.Cause(ctx)
}

// configure puts an image on a device that is free. The kernel leaves direct I/O out where
// the file system of the pool cannot do it.
func configure(n int, image *os.File) (*device, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: not there", path), "give the daemon the host's /dev")
	}
	if err != nil {
		return nil, err
	}
	c := unix.LoopConfig{Fd: uint32(image.Fd()), Size: sectorOf(image)}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(c.Info.File_name[:], mark)
	err = unix.IoctlLoopConfigure(int(f.Fd()), &c)
	if errors.Is(err, unix.EINVAL) { // it may be the direct I/O that is refused
		c.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO
		err = unix.IoctlLoopConfigure(int(f.Fd()), &c)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: attach: %w", path, err)
	}
	return &device{f, path, true}, nil
}

// find returns the loop device of ours that holds an image, nil if there is none.
func find(image *os.File) (*device, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return nil, err
	}
	paths, err := devicesOf(filepath.Base(image.Name()))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		f, info, err := status(path)
		if err != nil {
			continue // gone meanwhile
		}
		if info.Inode != st.Ino || info.Device != st.Dev {
			_ = f.Close()
			continue
		}
		if !isOurs(info) {
			_ = f.Close()
			return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "its image is attached to %s by somebody else", path),
				"unmount what is mounted from there, and losetup -d "+path)
		}
		return &device{f, path, false}, nil
	}
	return nil, nil
}

// devicesOf returns the paths of the loop devices whose image is a file of this name. The path
// that the kernel tells of it is one that others may see differently. Its last part is the same
// for all, and saves opening each device there is.
func devicesOf(name string) (paths []string, err error) {
	backed, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, sys := range backed {
		text, err := os.ReadFile(sys)
		if err == nil && filepath.Base(strings.TrimSuffix(strings.TrimSpace(string(text)), " (deleted)")) == name {
			paths = append(paths, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(sys))))
		}
	}
	return paths, nil
}

// status opens a loop device and asks what it holds.
func status(path string) (*os.File, *unix.LoopInfo64, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// isOurs tells whether a device is one that [configure] made.
func isOurs(info *unix.LoopInfo64) bool {
	return unix.ByteSliceToString(info.File_name[:]) == mark && info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0 &&
		info.Flags&unix.LO_FLAGS_READ_ONLY == 0 && info.Offset == 0 && info.Sizelimit == 0
}

// grace is how long a device may take to be gone after the last unmount: programs such as
// udev look at each, and hold it for an instant.
const grace = 3 * time.Second

// lock locks an image (flock(2)) for the one who opened it. A loop device takes over what was
// opened, and with it the lock: it holds until the last unmount, whatever becomes of this
// process, and where hosts share a file system that locks it keeps the others out.
func lock(ctx context.Context, image *os.File) error {
	for start := time.Now(); unix.Flock(int(image.Fd()), unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK; { // some servers cannot lock
		if time.Since(start) > grace {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "its image is mounted by another host, or being copied"),
				"unmount it there, or wait for the clone to be made")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// settle waits until no loop device holds the image. One that stays is ErrInUse.
func settle(ctx context.Context, image *os.File) error {
	for start := time.Now(); ; {
		v, err := find(image)
		if err != nil || v == nil {
			return err
		}
		v.close()
		if time.Since(start) > grace {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "its image is held by %s, which is mounted in another place or mount namespace", v.path),
				"stop the container or program that has it: grep "+v.path+" /proc/*/mountinfo")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// capacity tells the device that its image has grown.
func (v *device) capacity() error {
	if _, err := unix.IoctlRetInt(int(v.f.Fd()), unix.LOOP_SET_CAPACITY); err != nil {
		return fmt.Errorf("%s: set capacity: %w", v.path, err)
	}
	return nil
}
