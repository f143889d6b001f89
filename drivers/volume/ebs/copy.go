package ebs

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// CopySnapshot begins to copy a snapshot of another region to this one. What a key of KMS encrypts
// there is encrypted here by the pool's key, or the default one: keys do not leave their region.
func (p *provider) CopySnapshot(ctx context.Context, s block.Snapshot, from block.Traits, tags block.Tags) (block.Snapshot, error) {
	if from.Region == "" {
		return block.Snapshot{}, errdefs.Errorf(errdefs.ErrUnsupported, "the region of snapshot %s is not known", s.ID)
	}
	there, err := p.describeSnapshots(ctx, []types.Filter{tagIs(block.TagUUID, tags[block.TagUUID])})
	if err != nil || len(there) > 0 {
		return append(once(there), block.Snapshot{})[0], err
	}
	out, err := ask(ctx, p, "CopySnapshot", func(ctx context.Context) (*ec2.CopySnapshotOutput, error) {
		in := &ec2.CopySnapshotInput{
			SourceSnapshotId: aws.String(s.ID), SourceRegion: aws.String(from.Region), Description: aws.String("Remora: of " + s.ID + " in " + from.Region),
			TagSpecifications: p.specify(types.ResourceTypeSnapshot, tags),
		}
		if p.c.Encrypted || p.c.KMSKey != "" {
			in.Encrypted = aws.Bool(true)
		}
		if p.c.KMSKey != "" {
			in.KmsKeyId = aws.String(p.c.KMSKey)
		}
		return p.ec2.CopySnapshot(ctx, in)
	})
	if errors.Is(err, errdefs.ErrNotFound) { // it was there a moment ago, for the other pool
		err = errdefs.Errorf(errdefs.ErrUnsupported, "snapshot %s in %s is not for these credentials to copy", s.ID, from.Region)
		return block.Snapshot{}, errdefs.Hint(err, "share snapshots with the account of this pool, or take remora backup")
	}
	if err != nil {
		return block.Snapshot{}, err
	}
	return block.Snapshot{ID: aws.ToString(out.SnapshotId), Tags: tags, Size: s.Size, State: block.Creating}, nil
}
