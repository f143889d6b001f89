package ebs

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// factTwins are further snapshots that are this one: EC2 has no token for making them, so that
// one whose answer was lost may be made twice.
const factTwins = "twins"

// Snapshots returns the snapshots of a namespace.
func (p *provider) Snapshots(ctx context.Context, q block.Query) ([]block.Snapshot, error) {
	var all []block.Snapshot
	err := p.each(q, func(filters []types.Filter) error {
		list, err := p.describeSnapshots(ctx, filters)
		for _, s := range list {
			if s.Tags[block.TagNamespace] == q.Namespace {
				all = append(all, s)
			}
		}
		return err
	})
	return once(all), err
}

// once leaves one of several snapshots with the same UUID, the oldest.
func once(all []block.Snapshot) []block.Snapshot {
	slices.SortFunc(all, func(a, b block.Snapshot) int {
		return cmp.Or(strings.Compare(a.Tags[block.TagUUID], b.Tags[block.TagUUID]), a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	var out []block.Snapshot
	for _, s := range all {
		if n := len(out); n > 0 && s.Tags[block.TagUUID] != "" && out[n-1].Tags[block.TagUUID] == s.Tags[block.TagUUID] {
			if s.ID != out[n-1].ID {
				out[n-1].Facts = map[string]string{factTwins: strings.TrimSpace(out[n-1].Facts[factTwins] + " " + s.ID)}
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

func (p *provider) describeSnapshots(ctx context.Context, filters []types.Filter) (all []block.Snapshot, err error) {
	in := ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: filters, MaxResults: aws.Int32(pageSize)}
	for {
		out, err := ask(ctx, p, "DescribeSnapshots", func(ctx context.Context) (*ec2.DescribeSnapshotsOutput, error) {
			return p.ec2.DescribeSnapshots(ctx, &in)
		})
		if err != nil {
			return nil, err
		}
		for _, s := range out.Snapshots {
			all = append(all, snapshot(s))
		}
		if aws.ToString(out.NextToken) == "" {
			return all, nil
		}
		in.NextToken = out.NextToken
	}
}

func snapshot(s types.Snapshot) block.Snapshot {
	out := block.Snapshot{
		ID: aws.ToString(s.SnapshotId), Tags: tagsOf(s.Tags), Size: int64(aws.ToInt32(s.VolumeSize)) * gib, Created: aws.ToTime(s.StartTime), State: block.Creating,
	}
	switch s.State {
	case types.SnapshotStateCompleted:
		out.State = block.Ready
	case types.SnapshotStateError:
		out.State, out.Reason = block.Failed, cmp.Or(aws.ToString(s.StateMessage), "EBS says no more than that")
	case types.SnapshotStateRecoverable, types.SnapshotStateRecovering: // it is in the recycle bin
		out.State = block.Deleting
	}
	return out
}

// CreateSnapshot begins to make a snapshot.
func (p *provider) CreateSnapshot(ctx context.Context, d block.Disk, tags block.Tags) (block.Snapshot, error) {
	there, err := p.describeSnapshots(ctx, []types.Filter{tagIs(block.TagUUID, tags[block.TagUUID])})
	if err != nil || len(there) > 0 {
		return append(once(there), block.Snapshot{})[0], err
	}
	out, err := p.snap(ctx, d, tags)
	if err != nil {
		return block.Snapshot{}, tooNew(d, err)
	}
	s := snapshot(types.Snapshot{SnapshotId: out.SnapshotId, Tags: out.Tags, VolumeSize: out.VolumeSize, StartTime: out.StartTime, State: out.State, StateMessage: out.StateMessage})
	if len(s.Tags) == 0 { // an answer may leave them out
		s.Tags = tags
	}
	return s, nil
}

// snapEvery is between two tries where EBS takes one snapshot of a volume in 15 seconds. It is
// waited for here: the core would give up before.
const snapEvery = 3 * time.Second

func (p *provider) snap(ctx context.Context, d block.Disk, tags block.Tags) (*ec2.CreateSnapshotOutput, error) {
	for {
		out, err := ask(ctx, p, "CreateSnapshot", func(ctx context.Context) (*ec2.CreateSnapshotOutput, error) {
			return p.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{
				VolumeId: aws.String(d.ID), Description: aws.String("Remora: of " + d.ID), // plain ASCII, and not long
				TagSpecifications: p.specify(types.ResourceTypeSnapshot, tags),
			})
		})
		if codeOf(err) != "SnapshotCreationPerVolumeRateExceeded" {
			return out, err
		}
		select {
		case <-time.After(snapEvery):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// DeleteSnapshot deletes a snapshot.
func (p *provider) DeleteSnapshot(ctx context.Context, s block.Snapshot) error {
	for _, id := range append([]string{s.ID}, strings.Fields(s.Facts[factTwins])...) {
		_, err := ask(ctx, p, "DeleteSnapshot", func(ctx context.Context) (*ec2.DeleteSnapshotOutput, error) {
			return p.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
		})
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	return nil
}
