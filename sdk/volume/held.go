package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// initialPIDNamespace is what /proc/self/ns/pid names on the host itself
// (include/linux/proc_ns.h: PROC_PID_INIT_INO). Elsewhere /proc does not show the
// containers of an engine outside.
const initialPIDNamespace = "pid:[4026531836]"

// heldByProcess looks for a mount of what lies at mountpoint in the mount table of every
// process: a container has one for each of its volumes. A mount at the very same place
// is a copy that the kernel propagated to another namespace and holds nothing.
func heldByProcess(ctx context.Context, mountpoint string) (held, known bool) {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initialPIDNamespace {
		return false, false
	}
	mountpoint, err := filepath.EvalSymlinks(mountpoint)
	if err != nil {
		return false, errors.Is(err, fs.ErrNotExist)
	}
	own, err := readMountinfo("self")
	if err != nil {
		return false, false
	}
	device, root, ok := locate(own, mountpoint)
	if !ok {
		return false, false
	}
	holds := func(e mountEntry) bool {
		return e.device == device && within(e.root, root) && e.point != mountpoint && !within(e.point, mountpoint)
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return false, false
	}
	seen := map[string]bool{}
	for _, p := range processes {
		if ctx.Err() != nil {
			return false, false
		}
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		ns, err := os.Readlink("/proc/" + p.Name() + "/ns/mnt")
		if vanished(err) || seen[ns] {
			continue
		}
		if p.Name() == "1" && errors.Is(err, fs.ErrPermission) {
			continue // the host's own init, which may be out of sight, is no container
		}
		if err != nil {
			return false, false
		}
		table, err := os.ReadFile("/proc/" + p.Name() + "/mountinfo")
		if vanished(err) {
			continue
		}
		if err != nil {
			return false, false
		}
		seen[ns] = true
		if !strings.Contains(string(table), " "+device+" ") {
			continue
		}
		if slices.ContainsFunc(parseMountinfo(table), holds) {
			return true, true
		}
	}
	return false, true
}

// vanished tells that err means a process which ended while it was looked at. A zombie
// has no namespaces any more and answers with EINVAL.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL)
}
