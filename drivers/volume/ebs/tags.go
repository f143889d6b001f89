package ebs

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
)

// prefix is that of our tags; nameTag is what the console and other tools show.
const (
	prefix  = "remora:"
	nameTag = "Name"
)

// tagsOf returns our tags of a disk or snapshot.
func tagsOf(list []types.Tag) block.Tags {
	tags := block.Tags{}
	for _, t := range list {
		if key, ours := strings.CutPrefix(aws.ToString(t.Key), prefix); ours {
			tags[key] = aws.ToString(t.Value)
		}
	}
	return tags
}

// listOf makes a list of tags, always in the same order: with another one the token of a
// request would be refused.
func listOf(tags map[string]string) []types.Tag {
	list := make([]types.Tag, 0, len(tags))
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return list
}

// specify returns the tags that something new is to have from its first moment.
func (p *provider) specify(kind types.ResourceType, tags block.Tags) []types.TagSpecification {
	all := maps.Clone(p.tags)
	if all == nil {
		all = map[string]string{}
	}
	for k, v := range tags {
		all[prefix+k] = v
	}
	all[nameTag] = tags[block.TagName]
	return []types.TagSpecification{{ResourceType: kind, Tags: listOf(all)}}
}

// SetTags changes tags of a disk. It is one request, or two where some are taken away too.
func (p *provider) SetTags(ctx context.Context, d block.Disk, tags block.Tags) error {
	set, gone := map[string]string{}, []types.Tag{}
	for k, v := range tags {
		switch {
		case v == "":
			gone = append(gone, types.Tag{Key: aws.String(prefix + k)})
		case k == block.TagName:
			set[nameTag] = v
			fallthrough
		default:
			set[prefix+k] = v
		}
	}
	if err := p.setTags(ctx, d, set); err != nil || len(gone) == 0 {
		return err
	}
	_, err := ask(ctx, p, "DeleteTags", func(ctx context.Context) (*ec2.DeleteTagsOutput, error) {
		return p.ec2.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{d.ID}, Tags: gone})
	})
	return tooNew(d, err)
}

func (p *provider) setTags(ctx context.Context, d block.Disk, tags map[string]string) error {
	if len(tags) == 0 {
		return nil
	}
	_, err := ask(ctx, p, "CreateTags", func(ctx context.Context) (*ec2.CreateTagsOutput, error) {
		return p.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{d.ID}, Tags: listOf(tags)})
	})
	return tooNew(d, err)
}
