package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// prepare makes the directory of the staging and target paths a shared mount: what is mounted there, in whichever mount
// namespace the CSI driver runs, is to be seen here, and some CSI drivers refuse any other.
func (d *driver) prepare() error {
	if err := mount.Share(d.dir); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(d.dir) // as the kernel's table of mounts has it
	d.dir = real
	return state.Classify(err)
}

// unprepare undoes that, unless something is mounted below.
func (d *driver) unprepare() error {
	list, err := mount.List(d.dir)
	if err != nil || len(list) != 1 || list[0].Mountpoint != d.dir {
		return err
	}
	if err := mount.Unmount(d.dir); err != nil && !errors.Is(err, errdefs.ErrInUse) {
		return err
	}
	return nil
}

// pathsOf are the staging and the target path of a volume. They are short, since a CSI driver need not take more than
// 128 bytes, and have nothing of its ID in them, which may be a path.
func (d *driver) pathsOf(r record) (dir, staging, target string) {
	dir = filepath.Join(d.dir, digest("dir", r.Lineage, r.ID))
	return dir, filepath.Join(dir, "s"), filepath.Join(dir, "t")
}

// empty makes sure that a path is a directory with nothing in it, or is not there: what was written to it while
// nothing was mounted would be hidden by the mount, and some CSI drivers clean up by deleting.
func empty(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return state.Classify(err)
	}
	if len(entries) > 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "%s is not a mount, and not empty", path), "something wrote there while nothing was mounted; move it away")
	}
	return nil
}

// rmdir removes an empty directory and nothing else, whatever may have gone wrong before.
func rmdir(path string) error {
	err := syscall.Rmdir(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return state.Classify(&fs.PathError{Op: "rmdir", Path: path, Err: err})
}

// at returns the mounts at a path, the topmost last.
func at(path string) ([]mount.Info, error) {
	list, err := mount.List(path)
	return slices.DeleteFunc(list, func(m mount.Info) bool { return m.Mountpoint != path }), err
}

// topmost returns the topmost mount at a path, nil where there is none.
func topmost(path string) (*mount.Info, error) {
	list, err := at(path)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[len(list)-1], nil
}

func deviceOf(m mount.Info) string { return fmt.Sprintf("%d:%d", m.Major, m.Minor) }

// mountsOf returns where a device is mounted, in this mount namespace.
func mountsOf(device string) ([]string, error) {
	list, err := mount.List("/")
	var all []string
	for _, m := range list {
		if deviceOf(m) == device {
			all = append(all, m.Mountpoint)
		}
	}
	return all, err
}

// lookTime is how long a mount is given to say that it is alive.
const lookTime = 5 * time.Second

// errDead is a mount whose server has gone for good.
var errDead = errdefs.Errorf(errdefs.ErrUnavailable, "what served the mount has gone")

// looks are the calls of statfs(2) under way: on a file system that answers no more each holds a thread.
type looks struct {
	mu      sync.Mutex
	pending map[string]chan struct{}
	results map[string]error
}

// alive asks a file system whether it is there. [errDead] is that no waiting brings it back.
func (l *looks) alive(ctx context.Context, path string) error {
	l.mu.Lock()
	done, ok := l.pending[path]
	if !ok {
		done = make(chan struct{})
		if l.pending == nil {
			l.pending, l.results = map[string]chan struct{}{}, map[string]error{}
		}
		l.pending[path] = done
		go func() {
			var st unix.Statfs_t
			err := unix.Statfs(path, &st)
			for errors.Is(err, unix.EINTR) {
				err = unix.Statfs(path, &st)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.pending, path)
			l.results[path] = err
			close(done)
		}()
	}
	l.mu.Unlock()
	late := time.NewTimer(lookTime)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%s: the file system does not answer within %s", path, lookTime), "see whether its server is there")
	case <-ctx.Done():
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s: the file system does not answer: %w", path, context.Cause(ctx))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch err := l.results[path]; {
	case err == nil, errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESHUTDOWN), errors.Is(err, unix.ECONNABORTED):
		return errDead
	default:
		return state.Classify(&fs.PathError{Op: "statfs", Path: path, Err: err})
	}
}

// bindTo mounts what lies at the target path, or a directory in it, on the engine's mountpoint. No link in the volume
// is followed.
func bindTo(target, subdir, mountpoint string, readOnly bool) error {
	from := target
	if subdir != "" {
		top, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return state.Classify(&fs.PathError{Op: "open", Path: target, Err: err})
		}
		defer unix.Close(top)
		if err := unix.Mkdirat(top, subdir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) && !readOnly {
			return state.Classify(&fs.PathError{Op: "mkdir", Path: subdir, Err: err})
		}
		dir, err := unix.Openat(top, subdir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "subdir %q of the volume: not a directory: %w", subdir, err)
		}
		defer unix.Close(dir)
		from = "/proc/self/fd/" + strconv.Itoa(dir)
	}
	return mount.Mount(from, mountpoint, "", unix.MS_BIND, "")
}

// unbind unmounts what is at the engine's mountpoint. A mount that is dead is taken away although somebody has it open.
func unbind(mountpoint string, dead bool) error {
	for {
		m, err := topmost(mountpoint)
		if err != nil || m == nil {
			return err
		}
		if dead {
			err = state.Classify(unix.Unmount(mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		} else {
			err = mount.Unmount(mountpoint)
		}
		if err != nil {
			return err
		}
	}
}

// chownEmpty gives the root of a new volume to a group, for a CSI driver that does not.
func (d *driver) chownEmpty(r record, target string) {
	gid, err := strconv.Atoi(r.Capability.Chown)
	if err != nil || r.ReadOnly || readOnlyMode(r.Capability.Access) {
		return
	}
	entries, err := os.ReadDir(target)
	if err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lost+found" }) {
		return
	}
	if err := errors.Join(os.Chown(target, -1, gid), os.Chmod(target, 0o775|fs.ModeSetgid)); err != nil {
		d.log.Warn("the group of a new volume cannot be set", slog.String("volume", r.Name), slog.Any("error", err))
	}
}
