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
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// servesTime is how long what was not brought as far as a control group has to end, where others have the same output
// open for good.
const servesTime = 200 * time.Millisecond

// servingCgroup is where processes go on that serve a device.
func servingCgroup(name string) string { return name + ".serves" }

// letServe takes the processes that serve a device out of a control group, with all that they started: a file system is
// of no use without the connection that its daemon has another program make.
func letServe(name string) error {
	dirs, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	if idle, err := cgroupDirs(servingCgroup(name)); err == nil && len(cgroupPids(idle)) == 0 {
		_ = removeCgroups(idle)
	}
	for range 100 { // what is moved may start another meanwhile
		moved := false
		pids := cgroupPids(dirs)
		keep := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !serves(pid) })
		for i := 0; i < len(keep); i++ {
			for _, pid := range pids {
				if st, err := readStat(pid); err == nil && st.parent == keep[i] && !slices.Contains(keep, pid) {
					keep = append(keep, pid)
				}
			}
		}
		for _, pid := range keep {
			if err := enterCgroup(servingCgroup(name), pid); err != nil {
				return fmt.Errorf("keep process %d, which serves a file system: %w", pid, err)
			}
			moved = true
		}
		if !moved {
			return nil
		}
	}
	return fmt.Errorf("control group %s: its processes cannot be taken out of it", name)
}

// serves tells whether a process has a device open by which it serves others: /dev/fuse, or one of /dev/nbd*.
func serves(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		// A look at any other file could hang.
		target, err := os.Readlink(file)
		name := filepath.Base(target)
		if err != nil || name != "fuse" && !strings.HasPrefix(name, "nbd") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(file, &st) != nil {
			continue
		}
		major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			if major == 10 && minor == 229 {
				return true
			}
		case unix.S_IFBLK:
			if major == 43 {
				return true
			}
		}
	}
	return false
}

// enterCgroup makes a control group, in each hierarchy that can have it, and puts a process into it. In the others the
// process goes to the root, so that it is in no group that belongs to another.
func enterCgroup(name string, pid int) error {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "cgroup" && m.FSType != "cgroup2", false
	})
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	entered, failed := 0, error(nil)
	for _, m := range mounts {
		dir := filepath.Join(m.Mountpoint, name)
		err := os.Mkdir(dir, 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = putInto(dir, pid)
		}
		switch {
		case err == nil:
			entered++
		case errors.Is(err, unix.ESRCH):
			return nil // it has ended
		default:
			_ = unix.Rmdir(dir)
			failed = errors.Join(failed, err, putInto(m.Mountpoint, pid))
		}
	}
	if entered == 0 {
		return errors.Join(errors.New("there is no control group for it"), failed)
	}
	return nil
}

func putInto(dir string, pid int) error {
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	return errors.Join(err, f.Close())
}
