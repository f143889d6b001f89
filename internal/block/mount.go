package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// mounted is what is written down of a mount before it is made. It lies where a reboot ends it.
type mounted struct {
	Volume     string    `json:"volume"`
	Disk       string    `json:"disk"`
	Device     Device    `json:"device"`
	Mountpoint string    `json:"mountpoint"`
	Since      time.Time `json:"since"`
}

const mountedVersion = 1

// recordFile is where a mount is written down: a name may be as long as a file's may be.
func recordFile(name string) string {
	if len(name) > 200 {
		name = uuidOf("record", name)
	}
	return name + ".json"
}

func (d *driver) record(name string) (m mounted, ok bool, err error) {
	err = state.Read(d.run, recordFile(name), mountedVersion, &m)
	if errors.Is(err, errdefs.ErrNotFound) {
		return m, false, nil
	}
	return m, err == nil, err
}

// records returns all of them.
func (d *driver) records() ([]mounted, error) {
	dir, err := d.run.Open(".")
	if err != nil {
		return nil, state.Classify(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, state.Classify(err)
	}
	var all []mounted
	for _, n := range names {
		if !strings.HasSuffix(n, ".json") {
			continue
		}
		var m mounted
		err := state.Read(d.run, n, mountedVersion, &m)
		if err == nil {
			all = append(all, m)
		} else if !errors.Is(err, errdefs.ErrNotFound) { // unmounted meanwhile
			return nil, err
		}
	}
	return all, nil
}

// Mount brings the disk to this host, as a job that goes on where the call cannot wait, and mounts
// its file system on target.
func (d *driver) Mount(ctx context.Context, name, target string) (string, error) {
	if !filepath.IsAbs(target) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "target %q: not an absolute path", target)
	}
	if there, err := d.standing(name, target); there || err != nil {
		return target, err
	}
	for tries := 0; ; tries++ {
		if err := d.do(ctx, jobAttach, name, "", nil); err != nil {
			return "", err
		}
		err := d.mount(ctx, name, target)
		if !errors.Is(err, errNoDevice) || tries == 2 { // else it was taken off again in between
			return target, err
		}
	}
}

// standing tells whether the volume is mounted on target already, and refuses what is not it.
func (d *driver) standing(name, target string) (bool, error) {
	at, err := topmost(target)
	if err != nil || at == nil {
		return false, err
	}
	m, ok, err := d.record(name)
	if err != nil {
		return false, err
	}
	if !ok || m.Mountpoint != target || !isOf(*at, m.Device) {
		return false, errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "something else is mounted at %s: %s", target, at.Source), "unmount it: umount "+target)
	}
	disk, known := d.x.byID(m.Disk)
	if known && d.m.gone(d.p, disk, m.Device) {
		d.fence(m, noDevice)
		return false, nil
	}
	if known && at.Root == "/" && rootOf(disk) != "." { // half of a mount, see mount.Detached
		return false, state.Classify(unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return true, nil
}

// isOf tells whether a mount is of a device.
func isOf(at mount.Info, v Device) bool {
	if at.FSType == "btrfs" {
		return at.Source == v.Path
	}
	return at.Major == int(v.Major) && at.Minor == int(v.Minor)
}

// topmost returns the topmost mount on target, nil if there is none.
func topmost(target string) (*mount.Info, error) {
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

// mount mounts the file system of a disk that is here and prepared.
func (d *driver) mount(ctx context.Context, name, target string) error {
	disk, ok := d.x.volume(name)
	if !ok {
		return errNoVolume
	}
	defer d.hold(disk.ID)()
	if d.goes(disk.ID) {
		return errNoDevice
	}
	v, err := d.m.find(d.p, disk)
	if err != nil {
		return err
	}
	if !formatted(disk) {
		return errdefs.Errorf(errdefs.ErrUnavailable, "its file system is not made yet")
	}
	k := kinds[disk.Tags[tagFS]]
	inside, err := d.enterIdle(ctx, disk, k, v)
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close() }()
	d.growInside(ctx, name, inside, k, v)
	m := mounted{Volume: name, Disk: disk.ID, Device: v, Mountpoint: target, Since: time.Now().UTC().Truncate(time.Second)}
	if err := d.note(m); err != nil {
		return err
	}
	if !d.m.still(d.p, disk, v) {
		err = errNoDevice
	} else {
		err = inside.Attach(rootOf(disk), target)
	}
	if err != nil {
		return errors.Join(err, d.unnote(name))
	}
	d.stayed(disk)
	d.forgive(name)
	return nil
}

// enterIdle is enter, once nobody else has the device: whoever looks at it, or takes it away, has it for an
// instant.
func (d *driver) enterIdle(ctx context.Context, disk Disk, k kind, v Device) (*mount.Detached, error) {
	for began := time.Now(); ; {
		inside, err := d.enter(disk, k, v, nil)
		switch {
		case err == nil:
			return inside, nil
		case !d.m.still(d.p, disk, v):
			return nil, errNoDevice
		case !errors.Is(err, unix.EBUSY) || time.Since(began) > lingerTime:
			return nil, err
		}
		select {
		case <-time.After(devicePoll):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// enter mounts a file system where nobody sees it.
func (d *driver) enter(disk Disk, k kind, v Device, extra []string) (*mount.Detached, error) {
	if !d.m.still(d.p, disk, v) {
		return nil, errNoDevice
	}
	options := slices.Clone(k.Always)
	for _, o := range slices.Concat(d.c.Mount, strings.Split(disk.Tags[option+"mount_options"], ",")) {
		if o = strings.TrimSpace(o); k.Takes(o) {
			options = append(options, o)
		}
	}
	m, err := mount.Detach(v.Path, k.Name, append(options, extra...))
	if err != nil {
		if errdefs.Class(err) == nil {
			err = errdefs.As(errdefs.ErrUnavailable, err)
		}
		if len(errdefs.Hints(err)) == 0 {
			how := map[string]string{"ext4": "e2fsck -f", "xfs": "xfs_repair", "btrfs": "btrfs check"}[k.Name]
			err = errdefs.Hint(err, "make a snapshot first, then look at it with "+how+" "+v.Path)
		}
		return nil, err
	}
	return m, nil
}

// growInside makes the file system as large as its disk, which a resize may have left undone.
func (d *driver) growInside(ctx context.Context, name string, inside *mount.Detached, k kind, v Device) {
	top, err := inside.Open(".")
	if err == nil {
		err = grow(k, top, v)
		_ = top.Close()
	}
	if err != nil {
		d.log.WarnContext(ctx, "the file system could not be made as large as its disk", slog.String("volume", name), slog.Any("error", err))
	}
}

// The values of [tagRoot].
const (
	rootData = "data"
	rootAuto = "auto"
	rootAll  = "/"
)

// rootOf is which directory of the file system a container gets, "." for the whole.
func rootOf(d Disk) string {
	r := strings.Trim(path.Clean("/"+d.Tags[tagRoot]), "/")
	switch {
	case d.Tags[tagRoot] == "":
		return rootData
	case r == "":
		return "."
	}
	return r
}

// Unmount unmounts the file system. The disk is detached a while later.
func (d *driver) Unmount(ctx context.Context, name, mountpoint string) error {
	m, ok, err := d.record(name)
	if err != nil {
		return err
	}
	if ok && m.Mountpoint == mountpoint && d.lossOf(name) == nil {
		// An unmount does so only where nobody else has a copy of the mount, as in another namespace.
		if err := d.flush(Disk{ID: m.Disk, Tags: Tags{TagName: name}}); err != nil {
			d.log.WarnContext(ctx, "what was written to a volume could not be brought to its disk", slog.String("volume", name), slog.Any("error", err))
		}
	}
	if err := unmountAll(mountpoint, m, ok); err != nil || !ok || m.Mountpoint != mountpoint {
		return err
	}
	if err := d.unnote(name); err != nil {
		return err
	}
	if d.lossOf(name) != nil {
		d.forgive(name)
		return nil
	}
	disk, known := d.x.byID(m.Disk)
	if !known {
		disk = Disk{ID: m.Disk, Tags: Tags{}}
	}
	d.leave(disk, d.c.Detach)
	return nil
}

// unmountAll unmounts what is at a mountpoint, if it is the device's.
func unmountAll(mountpoint string, m mounted, known bool) error {
	for {
		at, err := topmost(mountpoint)
		if err != nil || at == nil {
			return err
		}
		if known && !isOf(*at, m.Device) {
			return errdefs.Errorf(errdefs.ErrInUse, "mountpoint %q: %s was mounted over it by somebody else", mountpoint, at.Source)
		}
		if err := mount.Unmount(mountpoint); err != nil {
			return err
		}
	}
}

// note and unnote keep what is written down of mounts.
func (d *driver) note(m mounted) error {
	return state.Write(d.run, recordFile(m.Volume), mountedVersion, m)
}

func (d *driver) unnote(name string) error { return state.Remove(d.run, recordFile(name)) }

// directory opens the directory of a detached mount that is the root of the volume.
func directory(inside *mount.Detached, dir string) (*os.File, error) {
	f, err := inside.Open(dir)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = fmt.Errorf("the directory %s is not on the disk: %w", dir, err)
	}
	return f, err
}
