package ebs

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Online: a disk grows while an instance has it.
func (p *provider) Online() bool { return true }

// Resize begins to make a disk larger.
func (p *provider) Resize(ctx context.Context, d block.Disk, size int64) error {
	want := int32((size + gib - 1) / gib)
	_, err := ask(ctx, p, "ModifyVolume", func(ctx context.Context) (*ec2.ModifyVolumeOutput, error) {
		return p.ec2.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: aws.String(d.ID), Size: aws.Int32(want)})
	})
	switch codeOf(err) {
	case "IncorrectModificationState", "VolumeModificationRateExceeded":
	default:
		return tooNew(d, err)
	}
	last, lerr := p.lastChange(ctx, d)
	if lerr != nil {
		return lerr
	}
	if last != nil && aws.ToInt32(last.TargetSize) >= want && last.ModificationState != types.VolumeModificationStateFailed {
		return nil // by the request before, whose answer was lost
	}
	return cooling(d.ID, last)
}

// lastChange returns the last change of a disk, nil if it is not known.
func (p *provider) lastChange(ctx context.Context, d block.Disk) (*types.VolumeModification, error) {
	out, err := ask(ctx, p, "DescribeVolumesModifications", func(ctx context.Context) (*ec2.DescribeVolumesModificationsOutput, error) {
		return p.ec2.DescribeVolumesModifications(ctx, &ec2.DescribeVolumesModificationsInput{Filters: []types.Filter{filter("volume-id", d.ID)}})
	})
	if err != nil {
		return nil, err
	}
	var last *types.VolumeModification
	for i, m := range out.VolumesModifications {
		if last == nil || aws.ToTime(m.StartTime).After(aws.ToTime(last.StartTime)) {
			last = &out.VolumesModifications[i]
		}
	}
	return last, nil
}

// coolDown is for how long EBS changes a disk no more that it has changed.
const coolDown = 6 * time.Hour

// cooling says from when on a disk can be changed again.
func cooling(id string, last *types.VolumeModification) error {
	const why = "EBS changes a disk once in 6 hours"
	if last == nil || last.StartTime == nil {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "disk %s was changed a short while ago, and %s", id, why), "try again later")
	}
	began := last.StartTime.UTC()
	err := errdefs.Errorf(errdefs.ErrInUse, "disk %s was changed at %s (%s), and %s", id, began.Format(time.RFC3339), last.ModificationState, why)
	return errdefs.Hint(err, "try again after "+began.Add(coolDown).Format(time.RFC3339)+"; or copy the data to a larger volume")
}
