// Package ebs is the driver whose volumes are disks of Amazon EBS: one for each volume, attached
// to the instance of EC2 on which a container uses it.
//
// What is the same for all clouds is package block. Here is what EC2 calls things, which of its
// errors means what, and how a disk is known on an instance: by the serial of its NVMe device.
package ebs

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("ebs", "a disk of Amazon EBS for each volume, which follows its container", open).
		WithOptions(block.Options(traits())).WithVariables(described()...)
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	p, err := connect(ctx, c, env.Log())
	if err != nil {
		return nil, err
	}
	return block.Open(ctx, p, c.Config, env)
}

const gib = 1 << 30

// traits are what all pools have in common.
func traits() block.Traits {
	return block.Traits{
		Kind:    "ebs",
		Options: []string{"type", "iops", "throughput", "zone", "encrypted", "kms_key", "snapshot"},
		Extra: []catalog.Key{
			{Name: multiAttach, Type: "bool", Help: "refused when true: EBS would let several hosts write to the disk, and its file system would be lost"},
		},
		Unit: gib, MinSize: gib, MaxSize: 64 << 40,
		Zonal: true, Outlive: true,
	}
}

// provider is EBS in one region, with the credentials of one pool.
type provider struct {
	c      config
	t      block.Traits
	tags   map[string]string // of each disk and snapshot that is made, besides ours
	ec2    *ec2.Client
	creds  aws.CredentialsProvider
	client *block.Client
	host   metadata
	names  names

	mu          sync.Mutex
	self        *instance
	owner       string             // the key ID, if it stays the same
	making      map[string]*making // disks with a key of KMS that are not ready yet, by ID
	vanishedFor time.Duration
	absent      map[string]time.Time
}

var (
	_ block.Provider       = (*provider)(nil)
	_ block.Snapshotter    = (*provider)(nil)
	_ block.SnapshotCopier = (*provider)(nil)
	_ block.Resizer        = (*provider)(nil)
	_ block.Prober         = (*provider)(nil)
	_ block.Finder         = (*provider)(nil)
	_ block.Owner          = (*provider)(nil)
)

// Traits returns what the pool can do.
func (p *provider) Traits() block.Traits { return p.t }

// ask makes one request, when the account has room for it.
func ask[T any](ctx context.Context, p *provider, action string, do func(ctx context.Context) (T, error)) (v T, err error) {
	err = p.client.Do(ctx, action, func(ctx context.Context) error {
		now, err := p.creds.Retrieve(ctx) // from memory, nearly always
		if err != nil {
			return p.noCredentials(ctx, err)
		}
		p.noteOwner(now)
		v, err = do(ctx)
		return p.explain(ctx, action, err)
	})
	return v, err
}
