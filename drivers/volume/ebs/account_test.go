package ebs

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
)

// TestRealAccount runs the scenarios in an account, on the instance of EC2 that the test runs on:
//
//	REMORA_TEST_EBS_REGION=eu-west-1 go test -run TestRealAccount -timeout 2h ./drivers/volume/ebs
//
// The credentials are those of the instance's role or of the environment, of REMORA_TEST_EBS_PROFILE,
// or REMORA_TEST_EBS_ACCESS_KEY and REMORA_TEST_EBS_SECRET_KEY. No run without them sets out to do
// this, so that it is not counted as left out.
func TestRealAccount(t *testing.T) {
	region := os.Getenv("REMORA_TEST_EBS_REGION")
	if region == "" {
		return
	}
	account := newAccount(t, region)
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newAccount(t, region).Started(t) },
		Size: gib, Bigger: 2 * gib, XFS: gib, Slow: 5 * time.Minute, Lag: 10 * time.Second,
		Change: func(c *block.Config) { c.Rate = 10 },
		Deviates: account.Deviates(map[string]string{
			"Resize": "EBS changes a disk once in 6 hours, and the scenario does it twice",
			"Calls":  "names that were removed a moment ago cost further requests, and when the disk is off cannot be seen",
		}),
	})
}

const runTag = "remora-test"

// newAccount is the account of the region. What is made has a tag of this run.
func newAccount(t testing.TB, region string) *blocktest.Account {
	t.Helper()
	run := blocktest.Mark()
	conf := config{
		Config: block.Config{Rate: 10, Dev: "/dev", Sys: "/sys"}, Region: region, Type: "gp3", Tags: []string{runTag + "=" + run},
		Profile:   os.Getenv("REMORA_TEST_EBS_PROFILE"),
		AccessKey: os.Getenv("REMORA_TEST_EBS_ACCESS_KEY"), SecretKey: catalog.NewSecret(os.Getenv("REMORA_TEST_EBS_SECRET_KEY")),
		Endpoint: os.Getenv("REMORA_TEST_EBS_ENDPOINT"), Zone: os.Getenv("REMORA_TEST_EBS_ZONE"),
	}
	open := func(t testing.TB) *provider {
		t.Helper()
		p, err := connect(t.Context(), conf, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p, marked := open(t), []types.Filter{filter("tag:"+runTag, run)}
	return &blocktest.Account{
		Machine: "instance",
		Open:    func(t testing.TB) block.Provider { return open(t) },
		Make: func(t testing.TB, name string, size int64) string {
			t.Helper()
			self, err := p.Self(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tags := conf.ownTags()
			tags[nameTag] = name
			out, err := p.ec2.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{
				AvailabilityZone: aws.String(cmp.Or(conf.Zone, self.Zone)), Size: aws.Int32(int32(size / gib)), VolumeType: types.VolumeTypeGp3,
				TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: listOf(tags)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			return *out.VolumeId
		},
		Disks: func(ctx context.Context) (all []block.Disk, err error) {
			left, err := p.describe(ctx, marked)
			for _, v := range left {
				all = append(all, p.disk(v))
			}
			return all, err
		},
		Snapshots: func(ctx context.Context) ([]block.Snapshot, error) { return p.describeSnapshots(ctx, marked) },
	}
}
