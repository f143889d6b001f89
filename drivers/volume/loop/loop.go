// Package loop is the driver whose volumes are file systems in image files, each on a loop
// device of its own while it is mounted (loop(4)).
//
//	PATH/.remora-pool.json            which pool this is
//	PATH/NAME/volume.json             the facts of a volume
//	PATH/NAME/image                   its file system, in which data/ is what a container gets
//	PATH/NAME/snapshots/SNAP.image    a snapshot, which shares blocks with the image
//	PATH/NAME/snapshots/SNAP.json     its facts; without them it is none
//	PATH/.remora-new-…                a volume that is being made
//	PATH/.remora-gone-…               a volume that is being deleted
//	PATH/.remora-trash/ID/NAME        a volume in the trash
//
// A volume appears and disappears by one rename(2). Loop devices are made so that the kernel
// takes them apart when nothing is mounted from them any more: there is nothing to clean up
// after a crash, and nothing to remember.
package loop

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("loop", "a file system in an image file for each volume, with a hard limit", open).
		WithOptions(catalog.Describe[options]())
}

// driver has volumes in a pool that cannot make snapshots of them. What all pools have, such as
// Remove, Ping and the trash, it has from [pooldir.Pool].
type driver struct {
	pooldir.Pool
	config config

	thawOnce sync.Once
	freezing sync.Map // by device, a *sync.Mutex held while its file system is frozen
}

// open makes the directory of a pool that has the default path. A path of the user's own is
// never made: it may be where a disk will be mounted. The driver has snapshots where the
// pool can share blocks, and where that cannot be found out yet.
func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	path, own := filepath.Clean(c.Path), c.Path == ""
	if own {
		path = filepath.Join(env.StateDir, "volumes", env.PoolName)
	}
	if own {
		if err := os.MkdirAll(path, 0o711); err != nil {
			return nil, state.Classify(err)
		}
	}
	d := &driver{config: c}
	d.Pool = pooldir.Pool{
		Path:   path,
		Memo:   pooldir.Memo{Dir: env.StateDir, Pool: env.PoolName},
		Host:   pooldir.Host(),
		Log:    env.Log(),
		Volume: d.hasVolume,
		Unused: d.unused,
		Delete: d.delete,
	}
	if can, known := d.canClone(ctx); known && !can {
		return d, nil
	}
	return &cloning{d}, nil
}

// Mount mounts the file system of the volume on target, after a check of one that was not
// cleanly unmounted. It is made as large as its image, which a resize may have left undone.
func (d *driver) Mount(ctx context.Context, name, target string) (string, error) {
	p, f, image, err := d.volume(ctx, name)
	if err != nil {
		return "", err
	}
	defer p.close()
	defer image.Close()
	if !filepath.IsAbs(target) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "target %q: not an absolute path", target)
	}
	if at, err := mountAt(target); err != nil {
		return "", err
	} else if at != nil {
		if f.Whole || at.Root != "/" {
			return target, d.thaw(*at, false)
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil { // half of a mount
			return "", d.Fail(name, err)
		}
	}
	_ = p.Remove(name + "/" + newImageName) // of a rollback that was cut off
	inside, err := d.enter(ctx, name, image, f, nil)
	if err != nil {
		return "", err
	}
	defer inside.close()
	if err := inside.growUnmounted(ctx, filesystem.MinGap); err != nil {
		if inside.Detached == nil {
			return "", d.Fail(name, err)
		}
		d.Log.WarnContext(ctx, "the file system could not be made as large as its image", slog.String("volume", name), slog.Any("error", err))
	}
	if f.Reserved { // a grow makes holes, and what fstrim(8) gave back is missing
		if err := reserveAll(image); err != nil {
			d.Log.WarnContext(ctx, "not all room of the volume is reserved", slog.String("volume", name), slog.Any("error", err))
		}
	}
	if err := inside.Attach(f.dir(), target); err != nil {
		return "", err
	}
	return target, nil
}

// volume opens the pool and the image of a volume.
func (d *driver) volume(ctx context.Context, name string) (pool, facts, *os.File, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return pool{}, facts{}, nil, err
	}
	f, err := p.facts(name)
	var image *os.File
	if err == nil {
		image, err = p.image(name + "/" + imageName)
		err = d.Fail(name+"/"+imageName, err)
	}
	if err != nil {
		p.close()
		return pool{}, f, nil, err
	}
	return p, f, image, nil
}

// loopPrefix is how the paths of loop devices begin.
const loopPrefix = "/dev/loop"

// entered is a file system that is mounted and seen by nobody yet.
type entered struct {
	*mount.Detached
	kind    kind
	device  *device
	options []string
}

func (inside *entered) close() {
	if inside.Detached != nil {
		_ = inside.Close()
	}
	inside.device.close()
}

// enter attaches an image, checks its file system if there is need, and mounts it detached.
func (d *driver) enter(ctx context.Context, name string, image *os.File, f facts, extra []string) (*entered, error) {
	v, err := attach(ctx, image)
	if err != nil {
		return nil, d.Fail(name+"/"+filepath.Base(image.Name()), err)
	}
	inside, err := d.enterDevice(ctx, name, image, v, f, extra)
	if err != nil {
		v.close()
		return nil, err
	}
	return inside, nil
}

func (d *driver) enterDevice(ctx context.Context, name string, image *os.File, v *device, f facts, extra []string) (*entered, error) {
	k := kinds[f.FS]
	if v.fresh {
		mended, err := k.Check(ctx, image, v.path)
		if err != nil {
			return nil, d.mendable(d.Fail(name, err), k, image)
		}
		if mended {
			d.Log.WarnContext(ctx, "the file system was not cleanly unmounted, and was mended", slog.String("volume", name))
		}
	}
	all := slices.Clone(k.Always)
	for _, option := range d.config.Mount {
		if k.Takes(option) {
			all = append(all, option)
		}
	}
	all = slices.Concat(all, f.Mount, extra)
	if f.Reserved {
		all = append(all, keeping[k.Name]...)
	}
	m, err := mount.Detach(v.path, k.Name, all)
	if err != nil {
		if errdefs.Class(err) == nil {
			err = errdefs.As(errdefs.ErrUnavailable, err)
		}
		return nil, d.mendable(err, k, image)
	}
	return &entered{m, k, v, all}, nil
}

// mendable says what a person can do about a file system that cannot be mounted.
func (d *driver) mendable(err error, k kind, image *os.File) error {
	if len(errdefs.Hints(err)) > 0 {
		return err
	}
	how := map[string]string{"ext4": "e2fsck -f", "xfs": "xfs_repair", "btrfs": "btrfs check"}[k.Name]
	return errdefs.Hint(err, "copy the image aside, then look at it with "+how+" "+d.pathOf(image))
}

// pathOf returns the path of an image of the pool, which was opened below /proc/self/fd/N.
func (d *driver) pathOf(image *os.File) string {
	_, path, _ := strings.Cut(strings.TrimPrefix(image.Name(), "/proc/self/fd/"), "/")
	return d.Path + "/" + path
}

// mountAt returns the topmost mount on target, nil if there is none.
func mountAt(target string) (*mount.Info, error) {
	list, err := mount.List(target)
	if err != nil {
		return nil, err
	}
	for _, m := range slices.Backward(list) {
		if m.Mountpoint == target {
			return &m, nil
		}
	}
	return nil, nil
}

// mountsOf returns where a device is mounted, in this mount namespace.
func mountsOf(device string) ([]mount.Info, error) {
	list, err := mount.List("/")
	if err != nil {
		return nil, err
	}
	var at []mount.Info
	for _, m := range list {
		if m.Source == device {
			at = append(at, m)
		}
	}
	return at, nil
}

// Unmount unmounts the file system, after which the kernel takes the loop device apart.
func (d *driver) Unmount(ctx context.Context, name, mountpoint string) error {
	if err := d.unmount(mountpoint); err != nil {
		return err
	}
	if p, _, image, err := d.volume(ctx, name); err == nil {
		stamp(image)
		_ = image.Close()
		p.close()
	}
	return nil
}

func (d *driver) unmount(mountpoint string) error {
	for {
		at, err := mountAt(mountpoint)
		if err != nil || at == nil {
			return err
		}
		if !strings.HasPrefix(at.Source, loopPrefix) {
			return errdefs.Errorf(errdefs.ErrInUse, "mountpoint %q: %s was mounted over it by somebody else", mountpoint, at.Source)
		}
		if err := d.thaw(*at, true); err != nil {
			return err
		}
		if err := mount.Unmount(mountpoint); err != nil {
			return err
		}
	}
}
