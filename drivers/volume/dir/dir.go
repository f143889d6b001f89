// Package dir is the driver whose volumes are directories: one below the pool's path
// for each volume, or one that exists elsewhere already.
//
//	PATH/.remora-pool.json     which pool this is
//	PATH/NAME/volume.json      the facts of a volume
//	PATH/NAME/data/            its data, which is its mountpoint
//	PATH/.remora-trash/ID/     a volume in the trash
//	PATH/.remora-new-…         a volume that is being made
//	PATH/.remora-gone-…        a volume that is being deleted
//
// A volume appears and disappears by one rename(2), so it is there whole or not at
// all. Nothing is remembered elsewhere: the directory can be carried to another host,
// and two hosts can share it.
package dir

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("dir", "a directory for each volume, or one that exists already", open).
		WithOptions(catalog.Describe[options]())
}

// The mode of directories that this driver makes around the data: anybody may pass
// through who knows a name, which a container in a user namespace has to, and nobody
// may list.
const passMode = 0o711

// driver has what all pools have, such as Remove, Ping and the trash, from [pooldir.Pool].
type driver struct {
	pooldir.Pool

	mu sync.Mutex
	// unusual has the volumes whose facts were seen to put the data elsewhere, or to make
	// no sense.
	unusual map[string]bool
}

// pool is the pool's directory, opened for one call.
type pool struct{ *pooldir.Dir }

func (d *driver) pool(ctx context.Context) (pool, error) {
	dir, err := d.Open(ctx)
	return pool{dir}, err
}

// open makes the directory of a pool that has the default path. A path of the user's
// own is never made: it may be where a disk will be mounted.
func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	path, own := filepath.Clean(c.Path), c.Path == ""
	if own {
		path = filepath.Join(env.StateDir, "volumes", env.PoolName)
	}
	if own {
		if err := os.MkdirAll(path, passMode); err != nil {
			return nil, state.Classify(err)
		}
	}
	d := &driver{}
	d.Pool = pooldir.Pool{
		Path: path,
		Memo: pooldir.Memo{Dir: env.StateDir, Pool: env.PoolName},
		Host: pooldir.Host(),
		Log:  env.Log(),
		Volume: func(dir *pooldir.Dir, name string) error {
			_, err := pool{dir}.facts(name)
			return err
		},
		Unused: func(_ context.Context, dir *pooldir.Dir, path string) error { return dir.NothingMounted(path) },
		Delete: d.remove,
	}
	return d, nil
}

// Mount returns the directory of the data, after a look whether it is there.
func (d *driver) Mount(ctx context.Context, name, _ string) (string, error) {
	if mountpoint, ok := d.mountUsual(name); ok {
		return mountpoint, nil
	}
	p, err := d.pool(ctx)
	if err != nil {
		return "", err
	}
	defer p.Close()
	f, err := p.facts(name)
	if _, ok := d.info(name, f, err); !ok || err != nil {
		return "", err
	}
	mountpoint := d.mountpoint(name, f)
	var st unix.Stat_t
	if f.Mountpoint == "" {
		err = unix.Fstatat(p.FD, name+"/"+dataName, &st, unix.AT_SYMLINK_NOFOLLOW)
	} else {
		if err = f.checkMount(); err == nil {
			err = unix.Stat(mountpoint, &st)
		}
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err == nil {
		err = d.hold(ctx, p, name, f)
	}
	if err != nil {
		err = errdefs.Errorf(errdefs.ErrUnavailable, "data directory %s: %w", mountpoint, err)
		return "", errdefs.Hint(err, "mount the file system on which the directory lies, or put the directory back")
	}
	return mountpoint, nil
}

// mountUsual is Mount where all is as it mostly is: the pool is the one known, and the
// volume has facts and beside them its data, all on the pool's file system. Whatever is
// different it leaves to Mount, which opens and decodes and takes four times as long. The
// facts are not read again: that they say something unusual would have been seen.
func (d *driver) mountUsual(name string) (mountpoint string, ok bool) {
	d.mu.Lock()
	unusual := d.unusual[name]
	d.mu.Unlock()
	if unusual || pooldir.CheckName(name) != nil {
		return "", false
	}
	var st unix.Stat_t
	if unix.Stat(d.Path, &st) != nil || !d.Is(&st) {
		return "", false
	}
	dev := st.Dev
	top := d.Path + "/" + name
	is := func(path string, kind uint32) bool {
		return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == kind && st.Dev == dev
	}
	mountpoint = top + "/" + dataName
	ok = is(top, unix.S_IFDIR) && is(top+"/"+factsName, unix.S_IFREG) && st.Size > 0 && is(mountpoint, unix.S_IFDIR)
	return mountpoint, ok
}

// see remembers whether a volume is one that mountUsual must not judge.
func (d *driver) see(name string, f facts, err error) {
	unusual := err != nil || f.Mountpoint != "" || f.Size > 0
	d.mu.Lock()
	defer d.mu.Unlock()
	if !unusual {
		delete(d.unusual, name)
		return
	}
	if d.unusual == nil {
		d.unusual = map[string]bool{}
	}
	d.unusual[name] = true
}

// Unmount has nothing to undo.
func (d *driver) Unmount(context.Context, string, string) error { return nil }

// mountpoint returns where the data of a volume lies.
func (d *driver) mountpoint(name string, f facts) string {
	if f.Mountpoint != "" {
		return f.Mountpoint
	}
	return d.Path + "/" + name + "/" + dataName
}
