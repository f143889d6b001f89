package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
)

// unmountBelow unmounts what is mounted below dir, and at it too where also is set, from the last to the first. What is
// in use is unmounted lazily: who uses it keeps it, and nobody meets it any more.
func unmountBelow(dir string, also bool) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return state.Classify(err)
	}
	for range 10 { // one more may appear below another that was hidden
		mounts, err := mount.List(real)
		if err != nil {
			return err
		}
		mounts = slices.DeleteFunc(mounts, func(m mount.Info) bool { return m.Mountpoint == real && !also })
		if len(mounts) == 0 {
			return nil
		}
		var failed error
		for _, m := range slices.Backward(mounts) {
			err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW)
			if err == unix.EBUSY {
				err = unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
			}
			if err != nil && err != unix.EINVAL && err != unix.ENOENT {
				failed = state.Classify(fmt.Errorf("unmount %q: %w", m.Mountpoint, err))
			}
		}
		if failed != nil {
			return failed
		}
	}
	return fmt.Errorf("unmount %q: something is mounted there again and again", dir)
}

// removeTree deletes a directory. What is mounted below it is unmounted first, and nothing is deleted across a mount
// (moby issue 36784).
func removeTree(dir string) error {
	if err := unmountBelow(dir, true); err != nil {
		return err
	}
	mounts, err := mount.List(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("remove %q: %q is mounted below it", dir, mounts[0].Mountpoint)
	}
	if err := os.RemoveAll(dir); err != nil {
		return state.Classify(err)
	}
	return nil
}

// sharing tells whether what a process mounts in the directories is seen here, and the other way round. A directory that was
// unmounted and shared anew is another one to a process that was started before.
func sharing(pid int, dirs []string) bool {
	if len(dirs) == 0 {
		return true
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	there, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return false
	}
	here, err := mountinfo.GetMounts(nil)
	if err != nil {
		return false
	}
	for _, dir := range dirs {
		if group := peersOf(here, dir); group == "" || group != peersOf(there, dir) {
			return false
		}
	}
	return true
}

// peersOf returns the peer group of the mount that a directory is in, or is (mount_namespaces(7)).
func peersOf(mounts []*mountinfo.Info, dir string) string {
	longest, group := 0, ""
	for _, m := range mounts {
		if !within(dir, m.Mountpoint) || len(m.Mountpoint) < longest {
			continue
		}
		longest, group = len(m.Mountpoint), ""
		for field := range strings.FieldsSeq(m.Optional) {
			if strings.HasPrefix(field, "shared:") {
				group = field
			}
		}
	}
	return group
}
