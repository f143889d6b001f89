// Package btrfs is the driver whose volumes are subvolumes of a btrfs: one that exists, or
// one on an image file that the driver makes, mounts and grows.
//
//	POOL/.remora-pool.json           which pool this is
//	POOL/NAME/volume.json            the facts of a volume
//	POOL/NAME/data                   its data, a subvolume, which is its mountpoint
//	POOL/NAME/snapshots/SNAP         a read-only snapshot of it, a subvolume too
//	POOL/NAME/snapshots/SNAP.json    its labels
//	POOL/.remora-trash/ID/NAME       a volume in the trash
//	POOL/.remora-new-…               something that is being made
//	POOL/.remora-gone-…              something that is being destroyed
//
// A volume appears and disappears by one rename(2), so it is there whole or not at all.
// Nothing is remembered elsewhere.
package btrfs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("btrfs", "a subvolume for each volume, with snapshots, clones and limits", open).
		WithOptions(catalog.Describe[options]())
}

// The mode of directories that this driver makes around the data: anybody may pass
// through who knows a name, which a container in a user namespace has to, and nobody
// may list.
const passMode = 0o711

// driver has what all pools have, such as Remove, Ping and the trash, from [pooldir.Pool].
type driver struct {
	pooldir.Pool
	image *image // nil where the pool lies on a btrfs of the user's
	quota string // quotaAuto, quotaOn or quotaOff

	mu      sync.Mutex
	mounted map[string]bool // volumes that were mounted by this process and not unmounted

	snapshots chan struct{} // held by the one who makes or removes a snapshot

	settling chan struct{} // closed when the sync under way is done; nil if there is none; under mu
	settled  time.Time     // when the last sync ended; under mu

	counts    *quotaState // what the last look found; nil before; under mu
	recounted time.Time   // when all was last counted again; under mu
}

// open opens a pool, and mounts its image. An image that cannot be had now, as its disk is
// away, is tried again at each call; what is wrong with the configuration is an error.
func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	d := &driver{quota: c.Quota, mounted: map[string]bool{}, snapshots: make(chan struct{}, 1)}
	d.Pool = pooldir.Pool{
		Path:  c.Path,
		Memo:  pooldir.Memo{Dir: env.StateDir, Pool: env.PoolName},
		Log:   env.Log(),
		Check: check,
		Found: d.found,
		Volume: func(dir *pooldir.Dir, name string) error {
			_, err := pool{dir}.facts(name)
			return err
		},
		Unused: func(_ context.Context, dir *pooldir.Dir, path string) error { return dir.NothingMounted(path) },
		Delete: func(ctx context.Context, dir *pooldir.Dir, name string) error { return pool{dir}.demolish(ctx, name) },
	}
	if c.Path != "" {
		return d, nil
	}
	im, err := newImage(c, env)
	if err != nil {
		return nil, err
	}
	d.image, d.Path, d.Key, d.Attach = im, im.mountpoint, im.path, d.attach
	if err := im.checkSize(); err != nil {
		return nil, err
	}
	if err := d.attach(ctx); err != nil {
		if errors.Is(err, errdefs.ErrInvalid) {
			return nil, err
		}
		d.Log.WarnContext(ctx, "the pool is not mounted yet", slog.Any("error", err))
	}
	return d, nil
}

func newImage(c config, env catalog.Env) (*image, error) {
	im := &image{path: c.Image, own: c.Image == "", label: "remora-" + env.PoolName}
	if im.own {
		im.path = filepath.Join(env.StateDir, "images", env.PoolName+".btrfs")
	}
	if c.Size != nil {
		im.size = int64(*c.Size)
	}
	if env.RunDir == "" || im.own && env.StateDir == "" {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "an image needs the daemon's state and run directories")
	}
	dir := filepath.Join(env.RunDir, "btrfs")
	if err := os.MkdirAll(dir, passMode); err != nil {
		return nil, state.Classify(err)
	}
	dir, err := filepath.EvalSymlinks(dir) // as the kernel writes it in its list of mounts
	if err != nil {
		return nil, state.Classify(err)
	}
	im.mountpoint = filepath.Join(dir, env.PoolName)
	return im, nil
}

// Mount returns the directory of the data, after a look whether it is there and has its
// limit.
func (d *driver) Mount(ctx context.Context, name, _ string) (string, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return "", err
	}
	defer p.Close()
	f, err := p.facts(name)
	if err != nil {
		return "", err
	}
	data, err := p.data(name)
	if err != nil {
		return "", err
	}
	defer unix.Close(data)
	if err := d.hold(ctx, data, name, f.Size); err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mounted[name] = true
	return d.mountpoint(name), nil
}

// Unmount has nothing to undo.
func (d *driver) Unmount(_ context.Context, name, _ string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mounted, name)
	return nil
}

// Close stops what runs in the background, which goes on at the next start, and unmounts
// the image where no volume is used.
func (d *driver) Close() error {
	err := d.Pool.Close()
	if d.image == nil {
		return err
	}
	return d.detach()
}

// mountpoint returns where the data of a volume lies.
func (d *driver) mountpoint(name string) string { return d.Path + "/" + name + "/" + dataName }
