package cinder

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/remora-plugins/remora/internal/block"
)

// factMulti marks a disk that several hosts may have.
const factMulti = "multiattach"

// disk is a volume as the core knows one.
func (p *provider) disk(v volumes.Volume) block.Disk {
	d := block.Disk{
		ID: v.ID, Tags: tags(v.Metadata), Size: int64(v.Size) * gib, State: block.Ready, Created: v.CreatedAt, Zone: v.AvailabilityZone,
		Type: v.VolumeType, Encrypted: v.Encrypted, Facts: map[string]string{},
	}
	if v.Multiattach {
		d.Facts[factMulti] = "yes"
	}
	switch {
	case v.Status == "creating", v.Status == "downloading", v.Status == "reverting", v.Status == "restoring-backup":
		d.State = block.Creating
	case v.Status == "deleting":
		d.State = block.Deleting
	case v.Status == "error_deleting", v.Status == "error" && d.Tags["formatted"] == "":
		// One that was never formatted never got done. Of any other the state may be mended,
		// and its data is there.
		d.State, d.Reason = block.Failed, "its status is "+v.Status
	case strings.HasPrefix(v.Status, "error"):
		d.Reason = "its status is " + v.Status
	}
	holding := block.Attached
	switch {
	case v.Status == "detaching":
		holding = block.Detaching
	case strings.HasPrefix(v.Status, "error"):
		holding = block.Stuck
	}
	for _, a := range v.Attachments {
		d.Holders = append(d.Holders, block.Holder{Host: holderOf(a.ServerID, a.AttachmentID), State: holding, Since: a.AttachedAt})
	}
	return d
}

// holderOf is whom an attachment is for: a server of Nova, or somebody who attached without it.
func holderOf(server, attachment string) string {
	if server == "" {
		return "attachment:" + attachment
	}
	return server
}

// look finds out what a volume does not say of itself: who is about to have it, and why it is in
// error.
func (p *provider) look(ctx context.Context, v volumes.Volume, d *block.Disk, all bool) error {
	moving := len(v.Attachments) == 0 && (v.Status == "reserved" || v.Status == "attaching" || v.Status == "detaching" || strings.HasPrefix(v.Status, "error_"))
	if all {
		d.Unlooked = moving
		return nil
	}
	if d.State == block.Failed {
		d.Reason = p.why(ctx, v)
	}
	if !moving {
		return nil
	}
	found, err := p.attachments(ctx, v.ID)
	if err != nil {
		return err
	}
	for _, a := range found {
		h := block.Holder{Host: holderOf(a.Instance, a.ID), State: block.Attaching}
		switch a.Status {
		case "attached":
			h.State = block.Attached
		case "detaching":
			h.State = block.Detaching
		case "error_attaching", "error_detaching":
			h.State = block.Stuck
		}
		d.Holders = append(d.Holders, h)
	}
	return nil
}

// attachment is one as Cinder lists it.
type attachment struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Instance string `json:"instance"`
}

func (p *provider) attachments(ctx context.Context, volume string) ([]attachment, error) {
	var got struct{ Attachments []attachment }
	err := tell(ctx, p, "ListAttachments", func(ctx context.Context, s *session) error {
		_, err := s.volumes.Get(ctx, s.volumes.ServiceURL("attachments")+"?volume_id="+volume, &got, nil) //nolint:bodyclose // it is read
		return err
	})
	return got.Attachments, err
}

// why returns what Cinder tells the user about a volume in error. It tells little, and never fails.
func (p *provider) why(ctx context.Context, v volumes.Volume) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var got struct {
		Messages []struct {
			Text string `json:"user_message"`
		}
	}
	err := tell(ctx, p, "ListMessages", func(ctx context.Context, s *session) error {
		_, err := s.volumes.Get(ctx, s.volumes.ServiceURL("messages")+"?resource_uuid="+v.ID, &got, nil) //nolint:bodyclose // it is read
		return err
	})
	if err != nil || len(got.Messages) == 0 {
		return "its status is " + v.Status
	}
	return fmt.Sprintf("its status is %s: %s", v.Status, strings.TrimSuffix(got.Messages[0].Text, "."))
}

// tags are ours of the metadata.
func tags(metadata map[string]string) block.Tags {
	all := block.Tags{}
	for k, v := range metadata {
		if k, ok := strings.CutPrefix(k, prefix); ok {
			all[k] = v
		}
	}
	return all
}

// metadata is tags as Cinder keeps them.
func metadata(tags block.Tags) map[string]string {
	all := make(map[string]string, len(tags))
	for k, v := range tags {
		all[prefix+k] = v
	}
	return all
}
