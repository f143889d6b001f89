package ebs

import (
	"cmp"
	"context"
	"fmt"
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
	blocktest.Run(t, blocktest.Config{
		New:  func(t testing.TB) blocktest.Cloud { return newAccount(t, region) },
		Size: gib, Bigger: 2 * gib, XFS: gib, Slow: 5 * time.Minute, Lag: 10 * time.Second,
		Change: func(c *block.Config) { c.Rate = 10 },
		Deviates: map[string]string{
			"Resize":   "EBS changes a disk once in 6 hours, and the scenario does it twice",
			"Idle":     "it counts what is asked for in a second, which is less than the rate here",
			"Calls":    "names that were removed a moment ago cost further requests, and when the disk is off cannot be seen",
			"Handover": "it needs a second instance", "TwoMakeOneName": "it needs a second instance",
		},
	})
}

// account is a real one. What is made has a tag of this run, by which it is deleted.
type account struct {
	conf  config
	hosts int
	p     *provider
}

const runTag = "remora-test"

func newAccount(t testing.TB, region string) *account {
	t.Helper()
	run := fmt.Sprintf("%d-%d", time.Now().Unix(), os.Getpid())
	a := &account{conf: config{
		Config: block.Config{Rate: 10, Dev: "/dev", Sys: "/sys"}, Region: region, Type: "gp3", Tags: []string{runTag + "=" + run},
		Profile:   os.Getenv("REMORA_TEST_EBS_PROFILE"),
		AccessKey: os.Getenv("REMORA_TEST_EBS_ACCESS_KEY"), SecretKey: catalog.NewSecret(os.Getenv("REMORA_TEST_EBS_SECRET_KEY")),
		Endpoint: os.Getenv("REMORA_TEST_EBS_ENDPOINT"), Zone: os.Getenv("REMORA_TEST_EBS_ZONE"),
	}}
	a.p = a.open(t)
	t.Cleanup(func() { a.clean(t, run) })
	return a
}

func (a *account) open(t testing.TB) *provider {
	t.Helper()
	p, err := connect(t.Context(), a.conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Host is the machine that the test runs on. There is one.
func (a *account) Host(t testing.TB) *blocktest.Host {
	t.Helper()
	if a.hosts++; a.hosts > 1 {
		t.Skip("deviates: the scenario needs a second instance")
	}
	self, err := a.p.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &blocktest.Host{ID: self.ID, Provider: func(t testing.TB) block.Provider { return a.open(t) }}
}

// File returns nothing: the bytes of a disk are Amazon's.
func (a *account) File(testing.TB, string) string { return "" }

// Foreign makes a disk as people do.
func (a *account) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	self, err := a.p.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tags := a.conf.ownTags()
	tags[nameTag] = name
	out, err := a.p.ec2.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{
		AvailabilityZone: aws.String(cmp.Or(a.conf.Zone, self.Zone)), Size: aws.Int32(int32(size / gib)), VolumeType: types.VolumeTypeGp3,
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: listOf(tags)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return *out.VolumeId
}

// clean deletes what this run has made, off this machine first.
func (a *account) clean(t testing.TB, run string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute)
	defer cancel()
	for ; ; time.Sleep(2 * time.Second) {
		left, err := a.p.describe(ctx, []types.Filter{filter("tag:"+runTag, run)})
		if err != nil || len(left) == 0 {
			if err != nil {
				t.Errorf("look for %s=%s: %v", runTag, run, err)
			}
			break
		}
		for _, v := range left {
			d := a.p.disk(v)
			for _, h := range d.Holders {
				err = a.p.Detach(ctx, d, h.Host, false)
			}
			if len(d.Holders) == 0 {
				err = a.p.Delete(ctx, d)
			}
			if err != nil {
				t.Logf("disk %s: %v", d.ID, err)
			}
		}
	}
	snaps, err := a.p.describeSnapshots(ctx, []types.Filter{filter("tag:"+runTag, run)})
	for _, s := range snaps {
		if err == nil {
			err = a.p.DeleteSnapshot(ctx, s)
		}
	}
	if err != nil {
		t.Errorf("snapshots of %s=%s: %v", runTag, run, err)
	}
}
