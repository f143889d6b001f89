// Package mem is the driver whose volumes are file systems in memory (tmpfs(5)), and
// the smallest driver there is: the one to read before writing another.
//
// Each volume is a tmpfs that is mounted below the pool's path from Create to Remove.
// The kernel's table of mounts is the catalogue, so volumes outlive the daemon and end
// with the machine. Nothing is written below a mountpoint on which nothing is mounted.
package mem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("mem", "a file system in memory for each volume, gone at reboot", open).
		WithOptions(catalog.Describe[options]())
}

// source stands in the kernel's table as what was mounted, and marks our mounts.
const source = "remora-mem"

type driver struct {
	path string // of the pool, as the kernel writes it
	log  *slog.Logger
}

func open(_ context.Context, c config, env catalog.Env) (volume.Driver, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	path := c.Path
	if path == "" {
		path = filepath.Join(env.RunDir, "mem", env.PoolName)
	}
	if err := os.MkdirAll(path, 0o711); err != nil {
		return nil, state.Classify(err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, state.Classify(err)
	}
	return &driver{path: real, log: env.Log()}, nil
}

// Create mounts the file system, unless it is mounted.
func (d *driver) Create(_ context.Context, name string, opts map[string]string) error {
	data, err := mountData(opts)
	if err != nil {
		return err
	}
	path, mounted, err := d.look(name)
	if err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return state.Classify(err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return state.Classify(err)
	}
	if len(entries) > 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "%s is not empty, and nothing is mounted on it", path),
			"move what lies there away; a volume would hide it")
	}
	if err := mount.Mount(source, path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		_ = unix.Rmdir(path)
		return err
	}
	return nil
}

// Remove unmounts the file system, with which its data ends.
func (d *driver) Remove(ctx context.Context, name string) error {
	path, mounted, err := d.look(name)
	if err != nil {
		return err
	}
	for again := mounted; again; { // more than once if somebody mounted over it
		if err := mount.Unmount(path); err != nil {
			return err
		}
		if again, err = mount.At(path); err != nil {
			return err
		}
	}
	err = unix.Rmdir(path) // also what a crash left between the two
	if !mounted {
		return errNoVolume
	}
	if err != nil {
		d.log.WarnContext(ctx, "a mountpoint cannot be removed", slog.String("path", path), slog.Any("error", err))
	}
	return nil
}

// Mount returns where the file system is mounted since Create.
func (d *driver) Mount(_ context.Context, name, _ string) (string, error) {
	path, mounted, err := d.look(name)
	if err != nil {
		return "", err
	}
	if !mounted {
		return "", errNoVolume
	}
	return path, nil
}

// Unmount has nothing to undo: the data would be lost.
func (d *driver) Unmount(context.Context, string, string) error { return nil }

// Volumes yields what is mounted.
func (d *driver) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		mounts, err := mount.List(d.path)
		if err != nil {
			yield(volume.Info{}, errdefs.As(errdefs.ErrUnavailable, err))
			return
		}
		seen := make(map[string]bool)
		for _, m := range mounts {
			if err := ctx.Err(); err != nil {
				yield(volume.Info{}, err)
				return
			}
			if !d.ours(m) || seen[m.Mountpoint] {
				continue
			}
			seen[m.Mountpoint] = true
			if !yield(info(m), nil) {
				return
			}
		}
	}
}

// Inspect returns one volume as Volumes would yield it.
func (d *driver) Inspect(_ context.Context, name string) (volume.Info, error) {
	path, mounted, err := d.look(name)
	if err != nil {
		return volume.Info{}, err
	}
	if !mounted {
		return volume.Info{}, errNoVolume
	}
	mounts, err := mount.List(path)
	if err != nil {
		return volume.Info{}, errdefs.As(errdefs.ErrUnavailable, err)
	}
	for _, m := range mounts {
		if d.ours(m) {
			return info(m), nil
		}
	}
	return volume.Info{}, errNoVolume
}

var errNoVolume = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

// look returns where the volume is, or would be, and whether its file system is
// mounted there.
func (d *driver) look(name string) (path string, mounted bool, err error) {
	if name == "" || len(name) > unix.NAME_MAX || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return "", false, errdefs.Errorf(errdefs.ErrInvalid, "name %q: not the name of a volume", name)
	}
	path = filepath.Join(d.path, name)
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, false, nil
	case err != nil:
		return path, false, state.Classify(err)
	case !fi.IsDir():
		return path, false, errdefs.Errorf(errdefs.ErrExists, "%s is in the way, and not a directory", path)
	}
	mounted, err = mount.At(path)
	if errors.Is(err, errdefs.ErrNotFound) {
		return path, false, nil // removed since
	}
	return path, mounted, err
}

// ours tells whether a mount is a volume of this pool.
func (d *driver) ours(m mount.Info) bool {
	return m.FSType == "tmpfs" && m.Source == source && filepath.Dir(m.Mountpoint) == d.path
}

func info(m mount.Info) volume.Info {
	i := volume.Info{
		Name: filepath.Base(m.Mountpoint), Mountpoint: m.Mountpoint,
		Options: madeWith(m.Options), Status: map[string]any{"options": m.Options},
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.Mountpoint, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st)
	if err == nil && st.Mask&unix.STATX_BTIME != 0 { // tmpfs has a time of birth since Linux 5.19
		i.CreatedAt = time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)).UTC().Truncate(time.Second)
	}
	return i
}

// madeWith makes the options of a volume of those of its tmpfs, as the kernel writes them:
// what is the default of tmpfs is not among them.
func madeWith(data string) map[string]string {
	opts := map[string]string{}
	for option := range strings.SplitSeq(data, ",") {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "size", "mode", "uid", "gid":
			opts[key] = value
		case "nr_inodes":
			opts["inodes"] = value
		}
	}
	return opts
}

// mountData makes the options of tmpfs of those of the volume.
func mountData(opts map[string]string) (string, error) {
	o, err := catalog.DecodeOptions[options](opts)
	if err != nil {
		return "", err
	}
	data := []string{fmt.Sprintf("mode=%04o", unixMode(o.Mode)), fmt.Sprintf("uid=%d", o.UID), fmt.Sprintf("gid=%d", o.GID)}
	for _, limit := range []struct {
		option, key string
		n           *int64
	}{{"size", "size", (*int64)(o.Size)}, {"inodes", "nr_inodes", o.Inodes}} {
		if limit.n == nil {
			continue
		}
		if *limit.n <= 0 { // which tmpfs takes for no limit at all
			return "", errdefs.Errorf(errdefs.ErrInvalid, "option %q: %q is not more than nothing", limit.option, opts[limit.option])
		}
		data = append(data, fmt.Sprintf("%s=%d", limit.key, *limit.n))
	}
	return strings.Join(data, ","), nil
}
