package ebs

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

const (
	east      = "us-east-1"
	west      = "eu-west-1"
	accessKey = "AKIAEXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// cloud is a fake of EC2 with the machines in it.
type cloud struct {
	*ec2.Cloud
	dir    string
	url    string
	region string
}

// quick is a cloud in which things take a while, and answers are a little behind.
func quick() ec2.Config {
	const step = 15 * time.Millisecond
	return ec2.Config{
		Delays: ec2.Delays{
			Create: step, Delete: step, Attach: step, Device: step, Detach: step, Busy: 3 * step, Modify: step, Optimize: 2 * step,
			Snapshot: step, Copy: step, Terminate: step, Release: time.Hour, // so that a dead holder stays one
		},
		Lag:    ec2.Lag{ID: step, List: step, Tags: step, TagFilter: 2 * step, StateFilter: step, Jitter: true},
		Limits: ec2.Limits{Unthrottled: true, SnapshotEvery: 1, ModifyEvery: 1},
	}
}

func newCloud(t testing.TB, conf ec2.Config) *cloud {
	t.Helper()
	ignoreEnvironment(t)
	c := &cloud{dir: t.TempDir(), region: east}
	conf.Dir = c.dir
	conf.Users = append(conf.Users, ec2.User{AccessKey: accessKey, SecretKey: secretKey})
	var err error
	if c.Cloud, err = ec2.New(conf); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c.Cloud)
	c.url = s.URL
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return c
}

// ignoreEnvironment keeps what this machine knows of AWS out of the tests.
func ignoreEnvironment(t testing.TB) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"EBS_REGION", "EBS_ENDPOINT", "EBS_KMSKEYID", "EBS_ACCESSKEY", "EBS_SECRETKEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
	} {
		setenv(t, name, "")
	}
	const none = "/nonexistent/none"
	setenv(t, "AWS_CONFIG_FILE", none)
	setenv(t, "AWS_SHARED_CREDENTIALS_FILE", none)
}

// setenv changes the environment where it is another: a test that runs beside others may not.
func setenv(t testing.TB, name, value string) {
	t.Helper()
	if os.Getenv(name) != value {
		t.Setenv(name, value)
	}
}

// pool is the configuration of a pool with keys.
func (c *cloud) pool() config {
	return config{
		Config: block.Config{Rate: 10000, Dev: "/dev", Sys: "/sys"}, Region: c.region, AccessKey: accessKey, SecretKey: catalog.NewSecret(secretKey),
		Endpoint: c.url, Type: "gp3",
	}
}

// instance starts a machine, and returns its metadata service's address.
func (c *cloud) instance(t testing.TB, spec ec2.InstanceSpec) (*ec2.Instance, string) {
	t.Helper()
	testenv.Require(t, testenv.Loop)
	i, err := c.AddInstance(spec)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(i.Metadata())
	t.Cleanup(s.Close)
	return i, s.URL
}

// open makes a provider on an instance.
func (c *cloud) open(t testing.TB, conf config, metadata string) *provider {
	t.Helper()
	p, err := connect(t.Context(), conf, catalog.Env{}.Log(), func(o *imds.Options) { o.Endpoint = metadata })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sdk is a client that tries once.
func (c *cloud) sdk() *awsec2.Client {
	return awsec2.New(awsec2.Options{
		Region: c.region, BaseEndpoint: aws.String(c.url), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	})
}

// Host adds a machine.
func (c *cloud) Host(t testing.TB) *blocktest.Host { return c.HostIn(t, c.region+"a") }

// Zones are two of three.
func (c *cloud) Zones() []string { return []string{c.region + "a", c.region + "b"} }

// Region is where the cloud's hosts are.
func (c *cloud) Region() string { return c.region }

// Elsewhere is the account's other region.
func (c *cloud) Elsewhere(testing.TB) blocktest.Cloud {
	other := *c
	other.region = west
	return &other
}

// HostIn adds a machine in a zone.
func (c *cloud) HostIn(t testing.TB, zone string) *blocktest.Host {
	t.Helper()
	i, metadata := c.instance(t, ec2.InstanceSpec{Region: c.region, Zone: zone})
	return &blocktest.Host{
		ID: i.ID, Machine: i.Machine(),
		Provider: func(t testing.TB) block.Provider { return c.open(t, c.pool(), metadata) },
		Terminate: func() {
			if _, err := c.sdk().TerminateInstances(t.Context(), &awsec2.TerminateInstancesInput{InstanceIds: []string{i.ID}}); err != nil {
				t.Error(err)
			}
		},
	}
}

// File returns the file with the bytes of a disk.
func (c *cloud) File(_ testing.TB, disk string) string {
	return filepath.Join(c.dir, c.region, "volumes", disk)
}

// Foreign makes a disk as people do.
func (c *cloud) Foreign(t testing.TB, name string, size int64) string {
	t.Helper()
	return c.volume(t, name, &awsec2.CreateVolumeInput{Size: aws.Int32(int32(size / gib)), VolumeType: types.VolumeTypeGp3})
}

// volume makes a disk that is not ours, and waits for it.
func (c *cloud) volume(t testing.TB, name string, in *awsec2.CreateVolumeInput) string {
	t.Helper()
	if in.AvailabilityZone == nil {
		in.AvailabilityZone = aws.String(c.region + "a")
	}
	in.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String(name)}}}}
	out, err := c.sdk().CreateVolume(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all, err := c.sdk().DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{Filters: []types.Filter{
			{Name: aws.String("tag:Name"), Values: []string{name}}, {Name: aws.String("volume-id"), Values: []string{*out.VolumeId}},
		}})
		if err == nil && len(all.Volumes) == 1 && all.Volumes[0].State == types.VolumeStateAvailable {
			return *out.VolumeId
		}
		if time.Now().After(end) {
			t.Fatalf("volume %s is not available: %v", *out.VolumeId, err)
		}
	}
}
