package ebs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pageSize is how many things an answer may hold, and most how many values EC2 takes in all
// filters of a request, less those of our own.
const (
	pageSize = 500
	most     = 190
)

// List returns the disks of a namespace.
func (p *provider) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	var all []block.Disk
	err := p.each(q, func(filters []types.Filter) error {
		list, err := p.describe(ctx, filters)
		for _, v := range list {
			if d := p.disk(v); d.Tags[block.TagNamespace] == q.Namespace && !slices.ContainsFunc(all, func(o block.Disk) bool { return o.ID == d.ID }) {
				all = append(all, d)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return append(all, p.vanished(q, all)...), nil
}

// each asks for what a query wants, in as few requests as EC2 takes. What is asked for by ID is
// found by it alone: filters by tag know of a change later than others.
func (p *provider) each(q block.Query, ask func([]types.Filter) error) error {
	if q.All() {
		return ask([]types.Filter{tagIs(block.TagNamespace, q.Namespace)})
	}
	for ids := range slices.Chunk(q.IDs, most) {
		if err := ask([]types.Filter{filter(idFilter(ids[0]), ids...)}); err != nil {
			return err
		}
	}
	for names := range slices.Chunk(q.Names, most) {
		if err := ask([]types.Filter{tagIs(block.TagNamespace, q.Namespace), tagIs(block.TagName, names...)}); err != nil {
			return err
		}
	}
	return nil
}

func idFilter(id string) string {
	if strings.HasPrefix(id, "snap-") {
		return "snapshot-id"
	}
	return "volume-id"
}

// plain keeps EC2 from reading signs of a pattern in a value.
var plain = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`)

func filter(name string, values ...string) types.Filter {
	for i, v := range values {
		if p := plain.Replace(v); p != v {
			values = slices.Clone(values)
			values[i] = p
		}
	}
	return types.Filter{Name: aws.String(name), Values: values}
}

func tagIs(key string, values ...string) types.Filter { return filter("tag:"+prefix+key, values...) }

// describe follows the pages.
func (p *provider) describe(ctx context.Context, filters []types.Filter) (all []types.Volume, err error) {
	in := ec2.DescribeVolumesInput{Filters: filters, MaxResults: aws.Int32(pageSize)}
	for {
		out, err := ask(ctx, p, "DescribeVolumes", func(ctx context.Context) (*ec2.DescribeVolumesOutput, error) { return p.ec2.DescribeVolumes(ctx, &in) })
		if err != nil {
			return nil, err
		}
		all = append(all, out.Volumes...)
		if aws.ToString(out.NextToken) == "" {
			return all, nil
		}
		in.NextToken = out.NextToken
	}
}

// one returns a disk as EC2 knows it now.
func (p *provider) one(ctx context.Context, id string) (types.Volume, error) {
	all, err := p.describe(ctx, []types.Filter{filter("volume-id", id)})
	if err == nil && len(all) == 0 {
		err = errdefs.Errorf(errdefs.ErrNotFound, "%s has no disk %s", p.t.Scope, id)
	}
	if err != nil {
		return types.Volume{}, err
	}
	return all[0], nil
}

// The facts of a disk that go with it.
const (
	factDevice = "device" // the name of its attachment
	factMulti  = "multi_attach"
)

// disk makes of what EC2 says of a disk what the core wants to know.
func (p *provider) disk(v types.Volume) block.Disk {
	d := block.Disk{
		ID: aws.ToString(v.VolumeId), Tags: tagsOf(v.Tags), Size: int64(aws.ToInt32(v.Size)) * gib, Created: aws.ToTime(v.CreateTime),
		Zone: aws.ToString(v.AvailabilityZone), Type: string(v.VolumeType), Encrypted: aws.ToBool(v.Encrypted),
		State: block.Ready, Facts: map[string]string{},
	}
	if kinds[d.Type].iops { // of the other types EC2 says what follows from the size
		d.IOPS = int64(aws.ToInt32(v.Iops))
	}
	if kinds[d.Type].throughput {
		d.Throughput = int64(aws.ToInt32(v.Throughput))
	}
	switch v.State {
	case types.VolumeStateCreating:
		d.State = block.Creating
	case types.VolumeStateDeleting, types.VolumeStateDeleted:
		d.State = block.Deleting
	case types.VolumeStateError:
		d.State, d.Reason = block.Failed, p.whyFailed(v)
	}
	if aws.ToBool(v.MultiAttachEnabled) {
		d.Facts[factMulti] = "true"
	}
	for _, a := range v.Attachments {
		if h := holder(a); h.State != "" {
			d.Holders = append(d.Holders, h)
			d.Facts[factDevice] = aws.ToString(a.Device)
		}
	}
	return d
}

func holder(a types.VolumeAttachment) block.Holder {
	state := map[types.VolumeAttachmentState]block.Holding{
		types.VolumeAttachmentStateAttaching: block.Attaching, types.VolumeAttachmentStateAttached: block.Attached,
		types.VolumeAttachmentStateDetaching: block.Detaching, types.VolumeAttachmentStateBusy: block.Stuck,
	}[a.State]
	return block.Holder{Host: aws.ToString(a.InstanceId), State: state, Since: aws.ToTime(a.AttachTime)}
}

// Create begins to make a disk.
func (p *provider) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	zone, err := p.zoneFor(ctx, s.Zone)
	if err != nil {
		return block.Disk{}, err
	}
	out, err := ask(ctx, p, "CreateVolume", func(ctx context.Context) (*ec2.CreateVolumeOutput, error) {
		return p.ec2.CreateVolume(ctx, p.createInput(s, zone))
	})
	switch {
	case codeOf(err) == "IdempotentParameterMismatch": // made by another host, with other options; or deleted
		return p.byToken(ctx, s)
	case codeOf(err) == "InvalidZone.NotFound":
		return block.Disk{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "zone %q: %s has none of this name for the account", zone, p.t.Scope), meanings["InvalidZone.NotFound"].hint)
	case err != nil && s.Snapshot != nil && errors.Is(err, errdefs.ErrNotFound):
		return block.Disk{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "snapshot %s: %s has none for the account", s.Snapshot.ID, p.t.Scope), "copy it to this region: aws ec2 copy-snapshot")
	case err != nil:
		return block.Disk{}, err
	}
	v := types.Volume{
		Attachments: out.Attachments, AvailabilityZone: out.AvailabilityZone, CreateTime: out.CreateTime, Encrypted: out.Encrypted, Iops: out.Iops, KmsKeyId: out.KmsKeyId,
		MultiAttachEnabled: out.MultiAttachEnabled, Size: out.Size, State: out.State, Tags: out.Tags, Throughput: out.Throughput, VolumeId: out.VolumeId, VolumeType: out.VolumeType,
	}
	d := p.disk(v)
	if len(d.Tags) == 0 { // an answer may leave them out
		d.Tags = s.Tags
	}
	p.watch(d, s)
	return d, nil
}

func (p *provider) createInput(s block.Spec, zone string) *ec2.CreateVolumeInput {
	in := &ec2.CreateVolumeInput{
		ClientToken: aws.String(s.UUID), AvailabilityZone: aws.String(zone),
		VolumeType: types.VolumeType(s.Type), Encrypted: s.Encrypted, TagSpecifications: p.specify(types.ResourceTypeVolume, s.Tags),
	}
	if s.Size != 0 { // without it the disk is as large as the snapshot
		in.Size = aws.Int32(int32((s.Size + gib - 1) / gib))
	}
	if s.IOPS != 0 {
		in.Iops = aws.Int32(int32(s.IOPS))
	}
	if s.Throughput != 0 {
		in.Throughput = aws.Int32(int32(s.Throughput))
	}
	if s.KMSKey != "" {
		in.KmsKeyId = aws.String(s.KMSKey)
	}
	if s.Snapshot != nil {
		in.SnapshotId = aws.String(s.Snapshot.ID)
	}
	return in
}

// zoneFor returns where a disk is made.
func (p *provider) zoneFor(ctx context.Context, zone string) (string, error) {
	if zone == "" {
		zone = p.c.Zone
	}
	if zone != "" {
		return zone, nil
	}
	self, err := p.here(ctx)
	if err != nil {
		return "", errdefs.Hint(fmt.Errorf("the zone of the disk: %w", err), "or say where it is to be: -o zone=, or zone in the pool")
	}
	if !strings.HasPrefix(self.Zone, p.c.Region) {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "this host is in zone %s, and the pool in region %s", self.Zone, p.c.Region), "say where the disk is to be: -o zone=, or zone in the pool")
	}
	return self.Zone, nil
}

// byToken returns the disk that was made with the token of s.
func (p *provider) byToken(ctx context.Context, s block.Spec) (block.Disk, error) {
	all, err := p.describe(ctx, []types.Filter{tagIs(block.TagUUID, s.UUID)})
	if err != nil {
		return block.Disk{}, err
	}
	for _, v := range all {
		if d := p.disk(v); d.State != block.Deleting {
			return d, nil
		}
	}
	return block.Disk{}, errdefs.Errorf(errdefs.ErrExists, "the token of the disk was used for one that is gone")
}

// Delete begins to delete a disk.
func (p *provider) Delete(ctx context.Context, d block.Disk) error {
	_, err := ask(ctx, p, "DeleteVolume", func(ctx context.Context) (*ec2.DeleteVolumeOutput, error) {
		return p.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(d.ID)})
	})
	p.forget(d.ID)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if codeOf(err) != "IncorrectState" {
		return err
	}
	// It is being deleted already, or not made yet.
	v, lerr := p.one(ctx, d.ID)
	if errors.Is(lerr, errdefs.ErrNotFound) || lerr == nil && p.disk(v).State == block.Deleting {
		return nil
	}
	return err
}

// young is how long a disk may be unknown to a part of EC2.
const young = 2 * time.Minute

// tooNew makes "not found" of a disk that was just made a thing that will pass.
func tooNew(d block.Disk, err error) error {
	if errors.Is(err, errdefs.ErrNotFound) && !d.Created.IsZero() && time.Since(d.Created) < young {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "disk %s, made %s ago, is not known everywhere yet", d.ID, strconv.Itoa(int(time.Since(d.Created).Seconds()))+"s"), "ask again in a minute")
	}
	return err
}
