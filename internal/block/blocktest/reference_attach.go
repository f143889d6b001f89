package blocktest

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

func (p *refProvider) Attach(ctx context.Context, disk block.Disk, self block.Host) error {
	_, err := ask(ctx, p, "Attach", func() (struct{}, error) {
		var none struct{}
		d, err := p.disk(disk.ID)
		if err != nil {
			return none, err
		}
		if p.c.hosts[self.ID] == nil {
			return none, errdefs.Errorf(errdefs.ErrNotFound, "host %s: there is none", self.ID)
		}
		if zone := p.c.zones[self.ID]; d.Zone != zone {
			return none, errdefs.Errorf(errdefs.ErrInvalid, "disk %s is in %s, %s in %s", d.ID, d.Zone, self.ID, zone)
		}
		if len(d.Holders) > 0 {
			h := d.Holders[0]
			if h.Host == self.ID && h.State != block.Detaching {
				return none, nil
			}
			return none, errdefs.Errorf(errdefs.ErrInUse, "disk %s is %s to %s", d.ID, h.State, h.Host)
		}
		if d.State != block.Ready {
			return none, errdefs.Errorf(errdefs.ErrInUse, "disk %s is %s", d.ID, d.State)
		}
		d.Holders = []block.Holder{{Host: self.ID, State: block.Attaching, Since: time.Now()}}
		p.c.changed(d)
		p.c.later(func() {
			if err = p.c.plug(d, self.ID); err == nil {
				d.Holders[0].State = block.Attached
			} else {
				d.Holders = nil
			}
			p.c.changed(d)
		})
		return none, err
	})
	return err
}

func (c *Reference) plug(d *refDisk, host string) error {
	serial := d.ID
	_, err := c.hosts[host].Machine.Plug(machine.Disk{
		File: d.file, Bus: machine.SCSI, Serial: serial, Vendor: "REMORA", Model: "Reference", Links: []string{"scsi-0Reference_" + serial},
	})
	return err
}

func (p *refProvider) Detach(ctx context.Context, disk block.Disk, host string, force bool) error {
	_, err := ask(ctx, p, "Detach", func() (struct{}, error) {
		var none struct{}
		d, err := p.disk(disk.ID)
		if err != nil {
			return none, err
		}
		if len(d.Holders) == 0 || d.Holders[0].Host != host || d.Holders[0].State == block.Detaching && !force {
			return none, nil
		}
		m := p.c.hosts[host].Machine
		name, shown := m.Named(d.file)
		if shown && !force && m.Busy(name) {
			return none, errdefs.Errorf(errdefs.ErrInUse, "disk %s is busy on %s", d.ID, host)
		}
		d.Holders[0].State = block.Detaching
		p.c.changed(d)
		p.c.later(func() {
			if name, shown := m.Named(d.file); shown {
				err = m.Unplug(name)
				if errors.Is(err, unix.EBUSY) && force {
					err = m.Yank(name)
				}
			}
			if err == nil {
				d.Holders = nil
			} else {
				d.Holders[0].State = block.Attached
			}
			p.c.changed(d)
		})
		return none, err
	})
	return err
}
