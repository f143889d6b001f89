package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// prepare sees that there is a file system on a disk that is attached here, and makes one only
// where two things say that there never was: our own record, and the device.
func (d *driver) prepare(ctx context.Context, r *jobs.Run, disk Disk, v Device) error {
	if err := r.Step("looking at what is on the disk", nil); err != nil {
		return err
	}
	busy, err := d.busy(ctx, disk, v)
	if busy || err != nil {
		return err
	}
	on, err := probe(ctx, v)
	if err != nil {
		return err
	}
	if !d.m.still(d.p, disk, v) {
		return errNoDevice
	}
	if !formatted(disk) && !on.blank() {
		// Somebody was here: what he has written down was read before the disk came to this host.
		if disk, err = d.again(ctx, r, disk); err != nil {
			return err
		}
	}
	k, known := kinds[on.what]
	ours := known && on.uuid == disk.Tags[TagUUID]
	switch {
	case formatted(disk) && known:
		return d.mend(ctx, r, disk, k, on, v)
	case formatted(disk):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "there was a file system on the disk %s when it was used last, and now there is %s", disk.ID, on),
			"nothing is written to it; look at "+v.Path+" while it is attached, or bring a snapshot back")
	case ours: // of a run that was cut off; nobody has had a mount of it, or it is whole
		err := d.finish(ctx, r, disk, k, v)
		if err == nil || disk.Tags[tagFormatted] != begun || errdefs.Class(err) == nil || ctx.Err() != nil {
			return err
		}
		if fresh, ferr := super(v, k.NeverMounted); ferr != nil || !fresh {
			return errors.Join(err, ferr)
		}
		d.log.InfoContext(ctx, "a file system that was not finished is made again", slog.String("volume", r.Object()), slog.String("disk", disk.ID))
		return d.format(ctx, r, disk, v, true)
	case on.blank(), on.what == "" && disk.Tags[tagFormatted] == begun:
		return d.format(ctx, r, disk, v, false)
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "the disk %s was never formatted by Remora, and is not blank: there is %s on it", disk.ID, on),
		"nothing was written to it; save what is on it, or give it back what it was: wipefs -a "+v.Path+" makes it blank")
}

// busyTime is how long a program may have a device: one that a daemon before this one has started
// may live on, and udev looks at each.
const busyTime = 15 * time.Second

// busy tells whether another mount of ours has the device already, of which the kernel then gives
// out the same file system. Anybody else who has it is waited for, for a while.
func (d *driver) busy(ctx context.Context, disk Disk, v Device) (bool, error) {
	for began := time.Now(); ; {
		used, err := d.m.inUse(v)
		if !used || err != nil {
			return false, err
		}
		at, err := mountsOf(v)
		switch {
		case err != nil:
			return false, err
		case len(at) > 0 && formatted(disk):
			return true, nil
		case len(at) > 0 || time.Since(began) > busyTime:
			return false, errdefs.Errorf(errdefs.ErrInUse, "%s is in use by a program, or by a mount in another place", v.Path)
		}
		select {
		case <-time.After(devicePoll):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// sizeSlack is by how much a device may differ from its disk: a header of encryption takes a part.
const sizeSlack = 64 << 20

// format makes the file system. That it has begun is said before, and that it is done after it:
// what is between the two nobody has ever had a mount of.
func (d *driver) format(ctx context.Context, r *jobs.Run, disk Disk, v Device, over bool) error {
	k := kinds[disk.Tags[tagFS]]
	if k.Name == "" {
		return errdefs.Errorf(errdefs.ErrUnsupported, "file system %q is not known here", disk.Tags[tagFS])
	}
	// One more proof that the device is the disk: what is mistaken for it has another size.
	if apart := v.Size - disk.Size; apart < -sizeSlack || apart > sizeSlack {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the disk %s has %s, and %s, which says that it is the disk, has %s", disk.ID, catalog.Bytes(disk.Size), v.Path, catalog.Bytes(v.Size)),
			"nothing was written to it; where the disk was made larger a moment ago, ask again")
	}
	if disk.Tags[tagFormatted] != begun {
		var err error
		if disk, err = d.tag(ctx, r, disk, Tags{tagFormatted: begun}); err != nil {
			return err
		}
	}
	if err := r.Step("making the file system", nil); err != nil {
		return err
	}
	if !d.m.still(d.p, disk, v) {
		return errNoDevice
	}
	// With our own UUID as its: by that what a crash leaves is known again.
	made := filesystem.New{Device: v.Path, Label: disk.Tags[TagName], UUID: disk.Tags[TagUUID], Over: over, Advice: "look for faults of the disk in dmesg"}
	if err := k.Make(ctx, made); err != nil {
		return err
	}
	return d.finish(ctx, r, disk, k, v)
}

// finish makes the data directory with its owner and mode, and writes down that the disk is
// formatted.
func (d *driver) finish(ctx context.Context, r *jobs.Run, disk Disk, k kind, v Device) error {
	if err := r.Step("making the data directory", nil); err != nil {
		return err
	}
	inside, err := d.enter(disk, k, v, nil)
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close() }()
	top, err := inside.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	a, err := d.t.decode(given(disk))
	if err != nil {
		return fmt.Errorf("options that the volume was made with: %w", err)
	}
	if err := unix.Mkdirat(int(top.Fd()), rootData, 0o700); err == nil || disk.Tags[tagFormatted] == begun {
		mode := fs.FileMode(0o755)
		fill(&mode, a.Mode)
		a.Mode = &mode
	} else if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if disk.Tags[tagFormatted] == begun {
		if err := own(inside, rootData, a.Owner); err != nil {
			return err
		}
	}
	if err := unix.Syncfs(int(top.Fd())); err != nil {
		return err
	}
	_, err = d.tag(ctx, r, disk, Tags{tagFormatted: now(), tagFS: k.Name})
	return err
}

// own has the directory that a container gets belong to whom it was asked for.
func own(inside *mount.Detached, dir string, o catalog.Owner) error {
	if !o.Given() {
		return nil
	}
	data, err := directory(inside, dir)
	if err != nil {
		return err
	}
	defer data.Close()
	return o.Apply(data)
}

// mend brings a file system in order that was there before: of a crash, of a disk that has grown,
// and of one that came from elsewhere.
func (d *driver) mend(ctx context.Context, r *jobs.Run, disk Disk, k kind, on found, v Device) error {
	mended, err := super(v, func(on io.ReaderAt) (bool, error) { return k.Check(ctx, on, v.Path) })
	if errors.Is(err, filesystem.ErrBroken) {
		err = errdefs.Hint(err, "make a snapshot, attach the disk (remora volume attach), and look at it with e2fsck -f "+v.Path)
	}
	if err != nil {
		return err
	}
	if mended {
		d.log.WarnContext(ctx, "the file system was not cleanly unmounted, and was mended", slog.String("volume", r.Object()))
	}
	if k.Name == "ext4" {
		left, err := gap(k, v)
		if err == nil && left >= filesystem.MinGap {
			err = k.GrowUnmounted(ctx, v.Path)
		}
		if err != nil {
			d.log.WarnContext(ctx, "the file system could not be made as large as its disk", slog.String("volume", r.Object()), slog.Any("error", err))
		}
	}
	if k.Name == "btrfs" && disk.Tags[tagFrom] != "" && !imported(disk) && on.uuid != disk.Tags[TagUUID] {
		// The kernel takes two devices with one ID for parts of one file system.
		if _, err := run.Output(ctx, nil, "btrfstune", "-f", "-M", disk.Tags[TagUUID], v.Path); err != nil {
			return k.Hint(fmt.Errorf("give the clone an ID of its own: %w", err))
		}
	}
	change := Tags{}
	if disk.Tags[tagFS] != k.Name {
		change[tagFS] = k.Name
	}
	if disk.Tags[tagRoot] == rootAuto {
		root, err := d.root(disk, k, v)
		if err != nil {
			return err
		}
		change[tagRoot] = root
	}
	if len(change) == 0 {
		return nil
	}
	_, err = d.tag(ctx, r, disk, change)
	return err
}

// root looks which directory of a file system from elsewhere is the volume: the one called data,
// where there is nothing beside it but what mkfs makes, as of REX-Ray and of our own.
func (d *driver) root(disk Disk, k kind, v Device) (string, error) {
	inside, err := d.enter(disk, k, v, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = inside.Close() }()
	top, err := inside.Open(".")
	if err != nil {
		return "", err
	}
	defer top.Close()
	entries, err := top.ReadDir(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	root := rootAll
	for _, e := range entries {
		switch {
		case e.Name() == rootData && e.IsDir():
			root = rootData
		case e.Name() != "lost+found":
			return rootAll, nil
		}
	}
	return root, nil
}

// tag changes tags of a disk, in the cloud and in memory.
func (d *driver) tag(ctx context.Context, r *jobs.Run, disk Disk, tags Tags) (Disk, error) {
	_, err := again(ctx, r, just(func(ctx context.Context) error { return d.p.SetTags(ctx, disk, tags) }))
	if err != nil {
		return disk, fmt.Errorf("write down in the cloud what became of the disk: %w", err)
	}
	d.x.retag(disk, tags)
	return disk.with(tags), nil
}

// loss is what is known of a volume that was taken from this host.
type loss struct {
	Since time.Time
	Why   string
}

func (l loss) String() string {
	return fmt.Sprintf("taken from this host at %s: %s", l.Since.UTC().Format(time.RFC3339), strings.TrimSpace(l.Why))
}
