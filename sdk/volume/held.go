package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
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
// process: a container has one for each of its volumes. Where a process has our root
// or that of the host, a mount on the very same directory is a copy that its namespace got
// when it was made, or that was propagated to it from a managed plugin, and holds nothing; a
// container has a root of its own, and whatever it has was given to it.
func heldByProcess(ctx context.Context, mountpoint string) (held, known bool) {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initialPIDNamespace {
		return false, false
	}
	mountpoint, err := resolve(mountpoint)
	if err != nil {
		return false, false // a disk that is away may be mounted in a container still
	}
	own, err := readMountinfo("self")
	if err != nil {
		return false, false
	}
	host, _ := readMountinfo("1") // none where it may not be read; then our own has to do
	device, root, ok := locate(own, mountpoint)
	if !ok {
		return false, false
	}
	shows := func(e mountEntry) bool { return e.device == device && within(e.root, root) }
	below := slices.DeleteFunc(slices.Clone(own), func(e mountEntry) bool { return e.point == mountpoint })
	belowDevice, belowRoot, _ := locate(below, mountpoint)
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
		ns, err := tableOf(p.Name())
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
		entries := parseMountinfo(table)
		holds := shows
		if sameRoot(entries, own) || sameRoot(entries, host) {
			homes := append(places(entries, belowDevice, belowRoot), mountpoint)
			holds = func(e mountEntry) bool {
				return shows(e) && !slices.ContainsFunc(homes, func(home string) bool { return within(e.point, home) })
			}
		}
		if slices.ContainsFunc(entries, holds) {
			return true, true
		}
	}
	return false, true
}

// openPath is O_PATH (open(2)), which package syscall has not.
const openPath = 0x200000

// resolve returns a path free of links, or says that there is nothing. Unlike filepath.EvalSymlinks it asks no file system for more
// than the names of directories: what is mounted there may answer no more.
func resolve(p string) (string, error) {
	fd, err := syscall.Open(p, openPath|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: p, Err: err}
	}
	defer func() { _ = syscall.Close(fd) }()
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

// places returns where a directory of a file system is seen in a mount table, but for mounts
// of the very directory.
func places(entries []mountEntry, device, dir string) []string {
	var all []string
	for _, e := range entries {
		if e.device == device && e.root != dir && within(dir, e.root) {
			all = append(all, path.Join(e.point, strings.TrimPrefix(dir, e.root)))
		}
	}
	return all
}

// tableOf names the mount table that a process has, which is its namespace's, as seen from
// its root.
func tableOf(process string) (string, error) {
	ns, err := os.Readlink("/proc/" + process + "/ns/mnt")
	if err != nil {
		return "", err
	}
	root, err := os.Readlink("/proc/" + process + "/root")
	return ns + " " + root, err
}

// sameRoot tells whether two mount tables begin with the same directory.
func sameRoot(a, b []mountEntry) bool {
	deviceA, rootA, okA := locate(a, "/")
	deviceB, rootB, okB := locate(b, "/")
	return okA && okB && deviceA == deviceB && rootA == rootB
}

// vanished tells that err means a process which ended while it was looked at. A zombie
// has no namespaces any more and answers with EINVAL.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL)
}
