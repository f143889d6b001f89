package ec2_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/ec2"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

const (
	east, west = "us-east-1", "eu-west-1"
	accessKey  = "AKIAEXAMPLE"
	secretKey  = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// lab is a cloud whose clock stands still, and who may call it.
type lab struct {
	*testing.T
	cloud *ec2.Cloud
	clock *fake.Manual
	url   string
	east  *awsec2.Client
	west  *awsec2.Client
}

func start(t *testing.T, conf ec2.Config) *lab {
	t.Helper()
	l := &lab{T: t, clock: fake.NewManual(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC))}
	conf.Dir, conf.Clock = t.TempDir(), l.clock
	conf.Users = append(conf.Users, ec2.User{AccessKey: accessKey, SecretKey: secretKey})
	var err error
	if l.cloud, err = ec2.New(conf); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(l.cloud)
	t.Cleanup(func() {
		if err := l.cloud.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	l.url = s.URL
	l.east, l.west = l.client(east, accessKey, secretKey), l.client(west, accessKey, secretKey)
	return l
}

// client is one of the SDK that tries once.
func (l *lab) client(region, key, secret string) *awsec2.Client {
	return awsec2.New(awsec2.Options{
		Region: region, BaseEndpoint: aws.String(l.url), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
	})
}

// instance starts one.
func (l *lab) instance(spec ec2.InstanceSpec) *ec2.Instance {
	l.Helper()
	testenv.Require(l.T, testenv.Loop)
	i, err := l.cloud.AddInstance(spec)
	if err != nil {
		l.Fatal(err)
	}
	return i
}

// create makes a volume of a GiB in the first zone, and returns its id.
func (l *lab) create(tags ...string) string {
	l.Helper()
	in := &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "a"), Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3}
	if len(tags) > 0 {
		spec := types.TagSpecification{ResourceType: types.ResourceTypeVolume}
		for _, t := range tags {
			key, value, _ := strings.Cut(t, "=")
			spec.Tags = append(spec.Tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
		}
		in.TagSpecifications = []types.TagSpecification{spec}
	}
	out, err := l.east.CreateVolume(l.Context(), in)
	if err != nil {
		l.Fatal(err)
	}
	return *out.VolumeId
}

// volume describes one.
func (l *lab) volume(id string) types.Volume {
	l.Helper()
	out, err := l.east.DescribeVolumes(l.Context(), &awsec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil {
		l.Fatal(err)
	}
	return out.Volumes[0]
}

func (l *lab) attach(id string, i *ec2.Instance, device string) error {
	_, err := l.east.AttachVolume(l.Context(), &awsec2.AttachVolumeInput{
		VolumeId: aws.String(id), InstanceId: aws.String(i.ID), Device: aws.String(device),
	})
	return err
}

func (l *lab) detach(id string, force bool) error {
	_, err := l.east.DetachVolume(l.Context(), &awsec2.DetachVolumeInput{VolumeId: aws.String(id), Force: aws.Bool(force)})
	return err
}

// state is that of a volume and of its first attachment.
func (l *lab) state(id string) string {
	l.Helper()
	v := l.volume(id)
	s := string(v.State)
	if len(v.Attachments) > 0 {
		s += " " + string(v.Attachments[0].State)
	}
	return s
}

func (l *lab) wantState(id, want string) {
	l.Helper()
	if got := l.state(id); got != want {
		l.Errorf("the volume is %q, want %q", got, want)
	}
}

// wantCode checks the code of an error as the SDK gives it.
func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	var api smithy.APIError
	switch {
	case want == "" && err != nil:
		t.Errorf("error %v", err)
	case want == "":
	case !errors.As(err, &api):
		t.Errorf("error %v, want %s", err, want)
	case api.ErrorCode() != want || api.ErrorMessage() == "":
		t.Errorf("error %s %q, want %s", api.ErrorCode(), api.ErrorMessage(), want)
	}
}

// device finds a volume on a machine by its serial.
func device(t *testing.T, i *ec2.Instance, id string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(filepath.Join(i.Machine().Dev(), "disk/by-id/nvme-Amazon_Elastic_Block_Store_"+strings.Replace(id, "-", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// mount mounts a device, and unmounts it when the test is over.
func mount(t *testing.T, dev string) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount(dev, at, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// unmount takes the file system off and waits until its disk is free: a process that starts meanwhile, with mounts of its own,
// has a copy of the mount for a moment.
func unmount(t *testing.T, at string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(at, &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	name, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		fd, err := unix.Open(filepath.Join("/dev", filepath.Base(name)), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is still in use: %v", name, err)
		}
	}
}

// save writes a file and flushes it.
func save(t *testing.T, at, text string) {
	t.Helper()
	f, err := os.Create(filepath.Join(at, "file"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func wantText(t *testing.T, at, want string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(at, "file"))
	if err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}
