package block

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Volumes yields the volumes of the account as they are remembered. The cloud is never asked.
func (d *driver) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		if err := d.remembered(ctx); err != nil {
			yield(volume.Info{}, err)
			return
		}
		for _, disk := range d.x.volumes() {
			if !yield(d.info(disk), nil) {
				return
			}
		}
	}
}

// firstList is how long a call waits for the first list, where nothing is remembered of before.
const firstList = 5 * time.Second

// remembered makes sure that there is something to answer from.
func (d *driver) remembered(ctx context.Context) error {
	if d.x.known() {
		return nil
	}
	late := time.NewTimer(firstList)
	defer late.Stop()
	select {
	case <-d.listed:
	case <-late.C:
	case <-ctx.Done():
	}
	if d.x.known() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listErr != nil {
		return d.listErr
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "%s has not answered yet", d.t.Scope)
}

// Inspect returns one volume as Volumes would yield it.
func (d *driver) Inspect(ctx context.Context, name string) (volume.Info, error) {
	if err := d.remembered(ctx); err != nil {
		return volume.Info{}, err
	}
	disk, ok := d.x.volume(name)
	if !ok {
		return volume.Info{}, errNoVolume
	}
	return d.info(disk), nil
}

// Status implements [volume.Stater].
func (d *driver) Status(name string) (map[string]any, bool) {
	disk, ok := d.x.volume(name)
	if !ok {
		return nil, false
	}
	return d.info(disk).Status, true
}

// volumeOf returns the disk of a volume from memory, or from the cloud where memory has none:
// another host may have made it just now.
func (d *driver) volumeOf(ctx context.Context, name string) (Disk, error) {
	if disk, ok := d.x.volume(name); ok {
		return disk, nil
	}
	if err := d.finds.look(ctx, name); err != nil {
		return Disk{}, err
	}
	disk, ok := d.x.volume(name)
	if !ok {
		return Disk{}, errNoVolume
	}
	return disk, nil
}

// info makes what the Handler sees of a disk.
func (d *driver) info(disk Disk) volume.Info {
	status := map[string]any{"disk": disk.ID, "size": catalog.Bytes(disk.Size).String(), "state": d.stateOf(disk)}
	for key, value := range map[string]string{"zone": disk.Zone, "type": disk.Type, "fs": disk.Tags[tagFS], "from": disk.Tags[tagFrom]} {
		if value != "" {
			status[key] = value
		}
	}
	if disk.IOPS > 0 {
		status["iops"] = disk.IOPS
	}
	if disk.Throughput > 0 {
		status["throughput"] = disk.Throughput
	}
	if disk.Encrypted {
		status["encrypted"] = true
	}
	if root := disk.Tags[tagRoot]; root != "" {
		status["root"] = root
	}
	if j, ok := d.jobs.Of(disk.Tags[TagName]); ok {
		status["job"] = fmt.Sprintf("%s: %s since %s", j.Kind, j.State, j.Since.UTC().Format(time.RFC3339))
		if j.Error != "" {
			status["error"] = j.Error
		}
	}
	return volume.Info{Name: disk.Tags[TagName], CreatedAt: disk.Created, Options: given(disk), Status: status}
}

// stateOf says in words where a disk is.
func (d *driver) stateOf(disk Disk) string {
	if l := d.lossOf(disk.Tags[TagName]); l != nil {
		return l.String()
	}
	if disk.State != Ready {
		return string(disk.State)
	}
	self, known := d.me()
	text := "available"
	for _, h := range disk.Holders {
		if known && h.Host == self.ID {
			return string(h.State) + " here"
		}
		text = string(h.State) + " to " + h.Host
		if !h.Since.IsZero() {
			text += " since " + h.Since.UTC().Format(time.RFC3339)
		}
	}
	return text
}

// Usage asks the file system while it is mounted here. While it is not, the size of the disk is all
// that is known.
func (d *driver) Usage(ctx context.Context, name string) (volume.Usage, error) {
	if err := d.remembered(ctx); err != nil {
		return volume.Usage{}, err
	}
	disk, ok := d.x.volume(name)
	if !ok {
		return volume.Usage{}, errNoVolume
	}
	m, ok, err := d.record(name)
	if err != nil {
		return volume.Usage{}, err
	}
	if !ok {
		return unmounted(disk), nil
	}
	return d.usage(disk, m)
}

func unmounted(disk Disk) volume.Usage { return volume.Usage{Used: volume.Unknown, Limit: disk.Size} }

func (d *driver) usage(disk Disk, m mounted) (volume.Usage, error) {
	u := unmounted(disk)
	at, err := topmost(m.Mountpoint)
	if err != nil || at == nil || !isOf(*at, m.Device) {
		return u, err
	}
	dir, err := at.Open()
	if err != nil {
		return u, err
	}
	defer dir.Close()
	if at.FSType == "btrfs" { // counts when it commits
		_ = unix.Syncfs(int(dir.Fd()))
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return u, state.Classify(err)
	}
	u.Used = int64(fs.Blocks-fs.Bfree) * fs.Bsize
	return u, nil
}

// Survey yields all volumes from memory, and asks the file systems that are mounted here.
func (d *driver) Survey(ctx context.Context) iter.Seq2[volume.Figures, error] {
	return func(yield func(volume.Figures, error) bool) {
		if err := d.remembered(ctx); err != nil {
			yield(volume.Figures{}, err)
			return
		}
		records, err := d.records()
		if err != nil {
			yield(volume.Figures{}, err)
			return
		}
		counts, counted := d.snaps.counts(ctx, d)
		for _, disk := range d.x.volumes() {
			u := unmounted(disk)
			f := volume.Figures{Name: disk.Tags[TagName], Usage: &u}
			if i := slices.IndexFunc(records, func(m mounted) bool { return m.Volume == f.Name }); i >= 0 {
				if u, err = d.usage(disk, records[i]); err != nil {
					continue
				}
			}
			if counted {
				n := counts[origin(disk)]
				f.Snapshots = &n
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}
