package runtime

import (
	"context"
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

// cgroupOf is the control group of a plugin. It is absolute, because else runc would make it below the daemon's own,
// and a service manager that stops the daemon would end the plugins with it.
func cgroupOf(id string) string { return "/remora-" + id }

// cgroupDirs returns the directories of a control group, one of each hierarchy that has it.
func cgroupDirs(name string) ([]string, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "cgroup" && m.FSType != "cgroup2", false
	})
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var dirs []string
	for _, m := range mounts {
		dir := filepath.Join(m.Mountpoint, name)
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// cgroupPids returns the processes in a control group, those of groups below it included.
func cgroupPids(dirs []string) []int {
	var pids []int
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return nil //nolint:nilerr // it vanished
			}
			data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for word := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(word); err == nil && pid > 0 && !slices.Contains(pids, pid) {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// sweepTime is how long processes that were killed have to be gone.
const sweepTime = 5 * time.Second

// sweepCgroup kills what is still in a control group and removes it, whoever made it: of a runc that was killed nobody
// else knows.
func sweepCgroup(ctx context.Context, name string) error {
	dirs, err := cgroupDirs(name)
	if err != nil || len(dirs) == 0 {
		return err
	}
	for deadline := time.Now().Add(sweepTime); ; {
		pids := cgroupPids(dirs)
		for _, pid := range pids {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				if slices.Contains(cgroupPids(dirs), pid) { // and not another one by now
					_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				}
				_ = unix.Close(fd)
			}
		}
		for _, dir := range dirs {
			thaw(dir)
		}
		if err = removeCgroups(dirs); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			if len(pids) > 0 {
				return fmt.Errorf("process %d does not end, though it was killed", pids[0])
			}
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// thaw lets killed processes end that are frozen.
func thaw(dir string) {
	if data, err := os.ReadFile(filepath.Join(dir, "freezer.state")); err == nil && !strings.HasPrefix(string(data), "THAWED") {
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "cgroup.freeze")); err == nil && strings.HasPrefix(string(data), "1") {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
}

// removeCgroups removes directories of control groups, and what is below them, from the bottom up.
func removeCgroups(dirs []string) error {
	var failed error
	for _, top := range dirs {
		var all []string
		_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(all) {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = fmt.Errorf("remove control group %s: %w", dir, err)
			}
		}
	}
	return failed
}
