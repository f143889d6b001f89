package ebs

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
)

// Find returns disks that are not ours.
func (p *provider) Find(ctx context.Context, ref string) ([]block.Foreign, error) {
	var filters []types.Filter
	switch {
	case strings.HasPrefix(ref, "vol-"):
		filters = append(filters, filter("volume-id", ref))
	case ref != "":
		filters = append(filters, filter("tag:"+nameTag, ref))
	}
	list, err := p.describe(ctx, filters)
	if err != nil {
		return nil, err
	}
	var all []block.Foreign
	for _, v := range list {
		f := block.Foreign{Disk: p.disk(v)}
		if f.Tags[block.TagUUID] != "" || ref == "" && boots(v) || f.State == block.Deleting {
			continue
		}
		f.Tags = block.Tags{}
		for _, t := range v.Tags {
			f.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
		}
		f.Name = f.Tags[nameTag]
		all = append(all, f)
	}
	return all, nil
}

// rootNames are the devices from which instances boot, as their images name them.
var rootNames = []string{"/dev/sda1", "/dev/sda", "/dev/xvda", "/dev/xvda1"}

// boots tells whether an instance boots from a disk, or made it for itself.
func boots(v types.Volume) bool {
	return slices.ContainsFunc(v.Attachments, func(a types.VolumeAttachment) bool {
		return aws.ToBool(a.DeleteOnTermination) || slices.Contains(rootNames, aws.ToString(a.Device))
	})
}

// Adopt writes our tags on a disk. Its name to people stays.
func (p *provider) Adopt(ctx context.Context, f block.Foreign, tags block.Tags) error {
	if f.Facts[factMulti] != "" {
		return errMulti(f.ID)
	}
	all := make(map[string]string, len(tags))
	for k, v := range tags {
		all[prefix+k] = v
	}
	return p.setTags(ctx, f.Disk, all)
}
