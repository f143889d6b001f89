// Package mount asks the kernel what is mounted, and mounts and unmounts.
//
// What it says is of the mount namespace of this process. Paths must be absolute and
// free of symbolic links, because that is how the kernel writes them
// (proc_pid_mountinfo(5)).
package mount

import (
	"fmt"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
)

// Info is one mount.
type Info struct {
	// ID is the kernel's number for it, which statx(2) gives for a file that is open. It may
	// be given to another mount when this one has gone.
	ID int
	// Mountpoint is the absolute path, with the kernel's escapes undone.
	Mountpoint string
	// FSType is the type of the file system, such as "tmpfs".
	FSType string
	// Source is what was mounted, as the one who mounted it wrote it.
	Source string
	// Root is the directory of the file system that is seen at the mountpoint, "/" where it
	// is the whole.
	Root string
	// Options are those of the file system, with commas between them.
	Options string
	// Major and Minor are the number of the device that is mounted, which is nobody else's
	// while it is. For btrfs, and what has no device, it is one that the kernel made up.
	Major, Minor int
}

// At tells whether path is a mountpoint, bind mounts included. A path that does not
// exist is ErrNotFound.
func At(path string) (bool, error) {
	mounted, err := mountinfo.Mounted(path)
	if err != nil {
		return false, state.Classify(err)
	}
	return mounted, nil
}

// List returns the mounts at dir and below it, in the order in which they were made,
// so that going through it backwards is the order to unmount in. A mount that another
// one hides is in the list too.
func List(dir string) ([]Info, error) {
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	list := make([]Info, len(found))
	for i, m := range found {
		list[i] = Info{ID: m.ID, Mountpoint: m.Mountpoint, FSType: m.FSType, Source: m.Source, Root: m.Root, Options: m.VFSOptions, Major: m.Major, Minor: m.Minor}
	}
	return list, nil
}

// Of returns the mountpoint of the mount in which path lies, "/" at the least. path need not
// exist.
func Of(path string) (string, error) {
	found, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	of := "/"
	for _, m := range found {
		if len(m.Mountpoint) > len(of) {
			of = m.Mountpoint
		}
	}
	return of, nil
}

// Mount mounts a file system on the directory target. flags are the MS_ constants and
// data the file system's own options (mount(2)). An error has the class of
// [state.Classify].
func Mount(source, target, fsType string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fsType, flags, data); err != nil {
		return state.Classify(fmt.Errorf("mount %s on %q: %w", fsType, target, err))
	}
	return nil
}

// busyTime is how long Unmount tries anew. A program that is being started has every file of this
// process open until its exec(2), and so has whoever looks at all mounts of a host.
const busyTime = 500 * time.Millisecond

// Unmount unmounts the topmost mount on target. A target that is no mountpoint, or
// does not exist, is no error; one that is still used after half a second is ErrInUse.
func Unmount(target string) error {
	for end := time.Now().Add(busyTime); ; time.Sleep(busyTime / 100) {
		switch err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); {
		case err == nil, err == unix.EINVAL, err == unix.ENOENT:
			return nil
		case err != unix.EBUSY || time.Now().After(end):
			return state.Classify(fmt.Errorf("unmount %q: %w", target, err))
		}
	}
}
