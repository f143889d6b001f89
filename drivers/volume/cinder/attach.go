package cinder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/attachments"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/volumeattach"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// askNova makes a request to Nova.
func askNova(ctx context.Context, p *provider, op string, do func(ctx context.Context, s *session) error) error {
	return tell(ctx, p, op, func(ctx context.Context, s *session) error {
		if s.compute == nil || s.noCompute != nil {
			err := errdefs.Errorf(errdefs.ErrUnsupported, "%s: the catalogue has no %s service of Nova there, and nobody else attaches a disk to a server", p.t.Scope, p.c.Interface)
			return errdefs.Hint(err, "is the region right? openstack catalog show nova lists them")
		}
		return do(ctx, s)
	})
}

// Attach has Nova attach a disk to this server. Cinder gives it to one server at a time: it
// compares the status and sets it in one step.
func (p *provider) Attach(ctx context.Context, d block.Disk, self block.Host) error {
	if d.Facts[factMulti] != "" {
		err := errdefs.Errorf(errdefs.ErrInvalid, "disk %s: Cinder lets several hosts write to it at once, and a file system does not bear that", d.ID)
		return errdefs.Hint(err, "detach it everywhere, and openstack volume set --type TYPE --retype-policy on-demand "+d.ID+" to a type without multiattach")
	}
	err := askNova(ctx, p, "AttachVolume", func(ctx context.Context, s *session) error {
		return volumeattach.Create(ctx, s.compute, self.ID, volumeattach.CreateOpts{VolumeID: d.ID}).Err
	})
	switch statusOf(err) {
	case http.StatusBadRequest:
		return p.notAttached(ctx, d, self, err)
	case http.StatusNotFound:
		if says(err, strings.ToLower(self.ID)) {
			err := errdefs.Errorf(errdefs.ErrUnavailable, "%s: Nova does not know server %s, which this host says it is", p.t.Scope, self.ID)
			return errdefs.Hint(err, "is the project right, and the region? A disk can be attached to servers of its own project alone")
		}
		return err
	case http.StatusConflict:
		return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "openstack server show "+self.ID+" tells what it is busy with, or why it is locked")
	case http.StatusForbidden:
		if says(err, "maximum allowed") {
			return errdefs.Hint(errdefs.As(errdefs.ErrInvalid, err), "the server has as many disks as Nova lets it have; virtio-scsi takes more than virtio-blk (hw_scsi_model of its image)")
		}
	}
	return err
}

// notAttached finds out why Nova did not attach a disk, and whether it is on its way here.
func (p *provider) notAttached(ctx context.Context, d block.Disk, self block.Host, err error) error {
	if says(err, "availability_zone") || says(err, "availability zone") {
		return errdefs.Hint(errdefs.As(errdefs.ErrInvalid, fmt.Errorf("disk %s is in zone %q, and this host in %q: %w", d.ID, d.Zone, self.Zone, err)),
			"run the container on a server in that zone, or make a clone with zone=")
	}
	v, gerr := p.get(ctx, d.ID)
	if gerr != nil {
		return gerr
	}
	now := p.disk(v)
	if lerr := p.look(ctx, v, &now, false); lerr != nil {
		return lerr
	}
	for _, h := range now.Holders {
		if h.Host == self.ID && (h.State == block.Attached || h.State == block.Attaching) {
			return nil
		}
	}
	switch {
	case strings.HasPrefix(v.Status, "error"):
		err = errdefs.Errorf(errdefs.ErrInvalid, "disk %s: %s", d.ID, p.why(ctx, v))
		return errdefs.Hint(err, "the data may be as it was: Cinder's operator can look, and reset its state")
	case v.Status == "available": // it is free, and it was something else that Nova did not like
		return err
	case v.Status == "deleting":
		return errdefs.Errorf(errdefs.ErrNotFound, "disk %s is being deleted", d.ID)
	}
	return errdefs.Errorf(errdefs.ErrInUse, "disk %s: its status is %s", d.ID, v.Status)
}

// Detach has Nova take a disk from a server. Where Nova does not have it there, or the server is
// none any more, an attachment that Cinder still believes in is deleted: Cinder asks Nova before it
// does so, and refuses where Nova uses it (since the fix of CVE-2023-2088).
func (p *provider) Detach(ctx context.Context, d block.Disk, host string, force bool) error {
	id, alone := strings.CutPrefix(host, "attachment:")
	if alone {
		return p.drop(ctx, id)
	}
	err := askNova(ctx, p, "DetachVolume", func(ctx context.Context, s *session) error {
		return volumeattach.Delete(ctx, s.compute, host, d.ID).ExtractErr()
	})
	if err == nil {
		return nil
	}
	status := statusOf(err)
	if status != http.StatusNotFound && status != http.StatusBadRequest && status != http.StatusConflict {
		return err
	}
	v, gerr := p.get(ctx, d.ID)
	if errors.Is(gerr, errdefs.ErrNotFound) {
		return nil
	}
	if gerr != nil {
		return gerr
	}
	found, gerr := p.attachments(ctx, d.ID)
	if gerr != nil {
		return gerr
	}
	for _, a := range found {
		switch {
		case a.Instance != host:
		case status == http.StatusNotFound:
			return p.drop(ctx, a.ID)
		case v.Status == "detaching":
			return nil
		case status == http.StatusConflict:
			return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "openstack server show "+host+" tells what it is busy with, or why it is locked")
		default:
			return errdefs.As(errdefs.ErrInUse, err)
		}
	}
	return nil
}

// drop deletes an attachment.
func (p *provider) drop(ctx context.Context, id string) error {
	err := tell(ctx, p, "DeleteAttachment", func(ctx context.Context, s *session) error {
		return attachments.Delete(ctx, s.volumes, id).ExtractErr()
	})
	if statusOf(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// serial is how much of a volume's ID a disk of virtio-blk shows (VIRTIO_BLK_ID_BYTES).
const serial = 20

// Match tells whether a device is the disk: QEMU has the volume's ID as its serial, of which
// virtio-blk shows the first 20 characters, and so do older versions of virtio-scsi.
func (p *provider) Match(d block.Disk, v block.Device) bool {
	if len(d.ID) != 36 {
		return false
	}
	if v.Serial != "" {
		return v.Serial == d.ID || v.Serial == d.ID[:serial]
	}
	for _, link := range v.Links {
		for _, of := range []string{"virtio-", "scsi-0QEMU_QEMU_HARDDISK_", "scsi-SQEMU_QEMU_HARDDISK_"} {
			if id, ok := strings.CutPrefix(link, of); ok && (id == d.ID || id == d.ID[:serial]) {
				return true
			}
		}
	}
	return false
}

// Gone tells whether a server is off or deleted. One that is suspended goes on with what it has in
// memory, and one that is being started is not off.
func (p *provider) Gone(ctx context.Context, host string) (bool, error) {
	var got struct {
		Server struct {
			Status string `json:"status"`
			Task   string `json:"OS-EXT-STS:task_state"`
		}
	}
	err := askNova(ctx, p, "GetServer", func(ctx context.Context, s *session) error {
		_, err := s.compute.Get(ctx, s.compute.ServiceURL("servers", host), &got, nil) //nolint:bodyclose // it is read
		return err
	})
	if statusOf(err) == http.StatusNotFound {
		return true, nil
	}
	if err != nil || got.Server.Task != "" {
		return false, err
	}
	switch got.Server.Status {
	case "SHUTOFF", "DELETED", "SOFT_DELETED", "SHELVED", "SHELVED_OFFLOADED":
		return true, nil
	}
	return false, nil
}
