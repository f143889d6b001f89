package block

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// watchEvery is how often the devices of mounted volumes are looked at.
const watchEvery = time.Second

// watchLoop looks at what is mounted: a disk that was taken from this host is seen here first.
func (d *driver) watchLoop() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		d.watch()
		select {
		case <-tick.C:
		case <-d.ctx.Done():
			return
		}
	}
}

func (d *driver) watch() {
	all, err := d.records()
	if err != nil {
		d.log.WarnContext(d.ctx, "what is mounted cannot be read", slog.Any("error", err))
		return
	}
	for _, m := range all {
		if d.lossOf(m.Volume) != nil || !d.vanished(m) {
			continue
		}
		// What was read may be of the mount before.
		if now, ok, err := d.record(m.Volume); err == nil && ok && now.Device.Name == m.Device.Name && now.Since.Equal(m.Since) {
			d.lose(m)
		}
	}
}

// lose fences a volume. To unmount a file system whose device is gone, and to ask the cloud who has it, may
// take their time, and others may be lost meanwhile.
func (d *driver) lose(m mounted) {
	if !d.mark(m, noDevice) {
		return
	}
	d.background.Go(func() {
		d.clear(m)
		d.blame(m)
	})
}

// noDevice is why a volume is lost, as long as nothing more is known.
const noDevice = "its device is not there any more"

// blame has a volume that is lost tell who has it now, as soon as the cloud's lists do.
func (d *driver) blame(m mounted) {
	for wait := d.t.Poll; ; wait = min(wait*3/2, lastPoll) {
		why := d.taker(m.Disk)
		d.mu.Lock()
		l, lost := d.lost[m.Volume]
		if lost {
			l.Why = why
			d.lost[m.Volume] = l
		}
		d.mu.Unlock()
		if !lost || why != noDevice || time.Since(l.Since) > settled {
			return
		}
		select {
		case <-time.After(wait):
		case <-d.ctx.Done():
			return
		}
	}
}

// vanished tells whether the device of a mount has certainly gone. Of a disk that nobody lists any
// more, its number has to do.
func (d *driver) vanished(m mounted) bool {
	if disk, ok := d.x.byID(m.Disk); ok {
		return d.m.gone(d.p, disk, m.Device)
	}
	now, err := d.m.device(m.Device.Name)
	return errors.Is(err, fs.ErrNotExist) || err == nil && (now.Major != m.Device.Major || now.Minor != m.Device.Minor || now.Serial != m.Device.Serial)
}

// taker says, as far as is known, why a device has gone.
func (d *driver) taker(id string) string {
	self, _ := d.me()
	list, err := d.list(d.ctx, Query{IDs: []string{id}})
	if err == nil {
		if i := slices.IndexFunc(list, func(o Disk) bool { return o.ID == id }); i >= 0 {
			for _, h := range list[i].Holders {
				if h.Host != self.ID {
					return "it is " + string(h.State) + " to host " + h.Host
				}
			}
		}
	}
	return noDevice
}

// fence takes away what is left of the mount of a volume that this host has lost: whoever still
// has it open is told by each write, and nobody else comes near it.
func (d *driver) fence(m mounted, why string) {
	d.mark(m, why)
	d.clear(m)
}

// mark has a volume count as lost, and tells whether it did not before.
func (d *driver) mark(m mounted, why string) bool {
	d.mu.Lock()
	_, again := d.lost[m.Volume]
	if !again {
		d.lost[m.Volume] = loss{time.Now(), why}
	}
	d.mu.Unlock()
	if again {
		return false
	}
	d.t.Client.lose()
	d.log.ErrorContext(d.ctx, "a volume was taken from this host while it was mounted; what was not written yet is lost",
		slog.String("volume", m.Volume), slog.String("disk", m.Disk), slog.String("reason", why))
	return true
}

// clear unmounts what is left of a mount, whoever uses it.
func (d *driver) clear(m mounted) {
	for {
		at, err := topmost(m.Mountpoint)
		if err != nil || at == nil || !isOf(*at, m.Device) {
			break
		}
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			d.log.ErrorContext(d.ctx, "a volume that was lost cannot be unmounted", slog.String("volume", m.Volume), slog.Any("error", err))
			break
		}
	}
}

func (d *driver) lossOf(name string) *loss {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.lost[name]; ok {
		return &l
	}
	return nil
}

// forgive ends that a volume counts as lost: nobody has it mounted any more, or it is whole again.
func (d *driver) forgive(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.lost, name)
}

// Look says whether the disk below a mount is the one that was mounted.
func (d *driver) Look(_ context.Context, name, mountpoint string) error {
	if l := d.lossOf(name); l != nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s", l)
	}
	m, ok, err := d.record(name)
	if err != nil || !ok || m.Mountpoint != mountpoint {
		return err
	}
	if d.vanished(m) {
		d.fence(m, noDevice)
		return errdefs.Errorf(errdefs.ErrUnavailable, "%s", d.lossOf(name))
	}
	return nil
}

// reconcile brings together what the cloud says of this host, what is written down as mounted, and
// what is mounted.
func (d *driver) reconcile() {
	d.idle(Host{})
	self, err := d.who(d.ctx)
	if err != nil {
		d.log.DebugContext(d.ctx, "attachments are not looked at", slog.Any("error", err))
		return
	}
	all, err := d.records()
	if err != nil {
		return
	}
	for _, m := range all {
		if mounted, err := mount.At(m.Mountpoint); err == nil && mounted {
			d.elsewhere(m, self)
		}
	}
	d.idle(self)
	d.sweep(self)
	d.clearOld()
}

// idle has disks detached that this host has, and nobody uses: those of which the cloud says so,
// where it is known who we are, and those that the machine shows, whatever a list says.
func (d *driver) idle(self Host) {
	all, err := d.records()
	if err != nil {
		return
	}
	devices, err := d.m.devices()
	if err != nil {
		d.log.DebugContext(d.ctx, "devices are not looked at", slog.Any("error", err))
	}
	here := func(o Disk) bool {
		if i := holder(o, self.ID); self.ID != "" && i >= 0 && o.Holders[i].State == Attached {
			return true
		}
		return slices.ContainsFunc(devices, func(v Device) bool { return d.p.Match(o, v) })
	}
	for _, disk := range d.x.where(here) {
		used := slices.ContainsFunc(all, func(m mounted) bool {
			if m.Disk != disk.ID {
				return false
			}
			mounted, err := mount.At(m.Mountpoint)
			return err != nil || mounted || d.lossOf(m.Volume) != nil
		})
		d.mu.Lock()
		_, leaving := d.leaving[disk.ID]
		d.mu.Unlock()
		if !leaving && !used && !d.isHeld(disk.ID) {
			d.leave(disk, d.c.Detach)
		}
	}
}

// elsewhere fences a mount of this host whose disk the cloud gave to another one, as happens
// without the device going away where it is mapped from a network. One list may be old: two must
// say so.
func (d *driver) elsewhere(m mounted, self Host) {
	other := func(o Disk) string {
		if holder(o, self.ID) >= 0 {
			return ""
		}
		for _, h := range o.Holders {
			if h.State == Attached {
				return h.Host
			}
		}
		return ""
	}
	disk, ok := d.x.byID(m.Disk)
	if !ok || other(disk) == "" || time.Since(m.Since) < settled || d.lossOf(m.Volume) != nil {
		return
	}
	list, err := d.list(d.ctx, Query{IDs: []string{m.Disk}})
	if err == nil && len(list) == 1 && other(list[0]) != "" {
		d.fence(m, "it is attached to host "+other(list[0]))
	}
}
