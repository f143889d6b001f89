package ec2_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/test/cloud/ec2"
)

var slow = ec2.Delays{
	Create: 2 * time.Second, Delete: 2 * time.Second, Attach: 2 * time.Second, Detach: 2 * time.Second, Busy: time.Second,
	Modify: 10 * time.Second, Optimize: 10 * time.Second, Snapshot: 10 * time.Second, Copy: 30 * time.Second,
	Terminate: 10 * time.Second, Release: 10 * time.Second,
}

func mkfs(t *testing.T, dev string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", dev).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v: %s", err, out)
	}
}

// TestFollow writes on one instance and reads on another, seeing each state on the way.
func TestFollow(t *testing.T) {
	l := start(t, ec2.Config{Delays: slow})
	one, two := l.instance(ec2.InstanceSpec{}), l.instance(ec2.InstanceSpec{})
	id := l.create()
	l.wantState(id, "creating")
	wantCode(t, l.attach(id, one, "/dev/sdf"), "IncorrectState")
	l.clock.Advance(2 * time.Second)
	l.wantState(id, "available")
	wantCode(t, l.detach(id, false), "IncorrectState")

	wantCode(t, l.attach(id, one, "/dev/sdf"), "")
	l.wantState(id, "in-use attaching")
	if names := one.Machine().Names(); len(names) > 0 {
		t.Errorf("%v is there before it is attached", names)
	}
	wantCode(t, l.attach(id, one, "/dev/sdg"), "VolumeInUse")
	l.clock.Advance(2 * time.Second)
	l.wantState(id, "in-use attached")
	wantCode(t, l.attach(id, two, "/dev/sdf"), "VolumeInUse")

	dev := device(t, one, id)
	mkfs(t, dev)
	at := mount(t, dev)
	save(t, at, "hello")
	wantCode(t, l.detach(id, false), "")
	l.wantState(id, "in-use detaching")
	l.clock.Advance(2 * time.Second)
	l.wantState(id, "in-use busy")
	wantText(t, at, "hello")
	unmount(t, at)
	l.clock.Advance(time.Second)
	l.wantState(id, "available")
	if names := one.Machine().Names(); len(names) > 0 {
		t.Errorf("%v is still there", names)
	}

	wantCode(t, l.attach(id, two, "/dev/sdf"), "")
	l.clock.Advance(2 * time.Second)
	at = mount(t, device(t, two, id))
	wantText(t, at, "hello")
	unmount(t, at)
	_, err := l.east.DeleteVolume(t.Context(), &awsec2.DeleteVolumeInput{VolumeId: aws.String(id)})
	wantCode(t, err, "VolumeInUse")
	wantCode(t, l.detach(id, false), "")
	l.clock.Advance(2 * time.Second)
	_, err = l.east.DeleteVolume(t.Context(), &awsec2.DeleteVolumeInput{VolumeId: aws.String(id)})
	wantCode(t, err, "")
	l.wantState(id, "deleting")
	wantCode(t, l.attach(id, one, "/dev/sdf"), "IncorrectState")
	l.clock.Advance(2 * time.Second)
	_, err = l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{VolumeIds: []string{id}})
	wantCode(t, err, "InvalidVolume.NotFound")
	_, err = l.east.DeleteVolume(t.Context(), &awsec2.DeleteVolumeInput{VolumeId: aws.String(id)})
	wantCode(t, err, "InvalidVolume.NotFound")
}

// TestForce takes a volume from under a mount. What the loser writes is not seen by the next.
func TestForce(t *testing.T) {
	l := start(t, ec2.Config{Delays: ec2.Delays{Detach: time.Second}})
	one, two := l.instance(ec2.InstanceSpec{}), l.instance(ec2.InstanceSpec{})
	id := l.create()
	wantCode(t, l.attach(id, one, "/dev/sdf"), "")
	dev := device(t, one, id)
	mkfs(t, dev)
	lost := mount(t, dev)
	save(t, lost, "before")
	wantCode(t, l.detach(id, false), "")
	l.clock.Advance(3 * time.Second)
	l.wantState(id, "in-use busy")
	wantCode(t, l.detach(id, true), "")
	l.clock.Advance(time.Second)
	l.wantState(id, "available")
	if err := os.WriteFile(filepath.Join(lost, "file"), []byte("after"), 0o600); err == nil {
		_ = exec.CommandContext(t.Context(), "sync", "-f", lost).Run() // fails, or goes nowhere
	}
	wantCode(t, l.attach(id, two, "/dev/sdf"), "")
	at := mount(t, device(t, two, id))
	wantText(t, at, "before")
	unmount(t, at)
}

func TestAttachWrong(t *testing.T) {
	l := start(t, ec2.Config{Limits: ec2.Limits{Attachments: 2}})
	here, far := l.instance(ec2.InstanceSpec{}), l.instance(ec2.InstanceSpec{Zone: east + "b"})
	a, b, c := l.create(), l.create(), l.create()
	wantCode(t, l.attach(a, far, "/dev/sdf"), "InvalidVolume.ZoneMismatch")
	wantCode(t, l.attach("vol-0123456789abcdef0", here, "/dev/sdf"), "InvalidVolume.NotFound")
	wantCode(t, l.attach("vol-1", here, "/dev/sdf"), "InvalidParameterValue")
	wantCode(t, l.attach(a, &ec2.Instance{ID: "i-0123456789abcdef0"}, "/dev/sdf"), "InvalidInstanceID.NotFound")
	wantCode(t, l.attach(a, here, "/dev/sda1"), "InvalidParameterValue")
	wantCode(t, l.attach(a, here, "/dev/sdf"), "")
	wantCode(t, l.attach(b, here, "/dev/sdf"), "InvalidParameterValue")
	wantCode(t, l.attach(b, here, "/dev/xvdba"), "")
	wantCode(t, l.attach(c, here, "/dev/sdh"), "AttachmentLimitExceeded")
	_, err := l.east.DetachVolume(t.Context(), &awsec2.DetachVolumeInput{VolumeId: aws.String(a), InstanceId: aws.String(far.ID)})
	wantCode(t, err, "InvalidAttachment.NotFound")
}

// TestNames attaches in the order of the letters, and finds the devices in another.
func TestNames(t *testing.T) {
	l := start(t, ec2.Config{Seed: 3})
	i := l.instance(ec2.InstanceSpec{})
	straight := true
	for n := range 5 {
		id := l.create()
		wantCode(t, l.attach(id, i, fmt.Sprintf("/dev/sd%c", 'f'+n)), "")
		if filepath.Base(device(t, i, id)) != fmt.Sprintf("nvme%dn1", n+1) {
			straight = false
		}
	}
	if straight {
		t.Error("the names of the devices follow those that were asked for")
	}
	old := l.instance(ec2.InstanceSpec{Type: "t2.micro"})
	wantCode(t, l.attach(l.create(), old, "/dev/sdf"), "")
	if names := old.Machine().Names(); len(names) != 1 || names[0] != "xvdf" {
		t.Errorf("on Xen: %v", names)
	}
}

func TestMultiAttach(t *testing.T) {
	l := start(t, ec2.Config{})
	one, two := l.instance(ec2.InstanceSpec{}), l.instance(ec2.InstanceSpec{})
	v, err := l.east.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{
		AvailabilityZone: aws.String(east + "a"), Size: aws.Int32(4), VolumeType: types.VolumeTypeIo2, Iops: aws.Int32(100), MultiAttachEnabled: aws.Bool(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.attach(*v.VolumeId, one, "/dev/sdf"), "")
	wantCode(t, l.attach(*v.VolumeId, two, "/dev/sdf"), "")
	wantCode(t, l.attach(*v.VolumeId, two, "/dev/sdg"), "VolumeInUse")
	if n := len(l.volume(*v.VolumeId).Attachments); n != 2 {
		t.Errorf("%d attachments", n)
	}
	wantCode(t, l.detach(*v.VolumeId, false), "MissingParameter")
	for _, i := range []*ec2.Instance{one, two} {
		_, err := l.east.DetachVolume(t.Context(), &awsec2.DetachVolumeInput{VolumeId: v.VolumeId, InstanceId: aws.String(i.ID)})
		wantCode(t, err, "")
	}
	l.wantState(*v.VolumeId, "available")
}

// TestTerminate ends an instance with a volume mounted. The volume is free only a while later.
func TestTerminate(t *testing.T) {
	l := start(t, ec2.Config{Delays: ec2.Delays{Terminate: 10 * time.Second, Release: 10 * time.Second}})
	one, two := l.instance(ec2.InstanceSpec{}), l.instance(ec2.InstanceSpec{})
	id := l.create()
	wantCode(t, l.attach(id, one, "/dev/sdf"), "")
	dev := device(t, one, id)
	mkfs(t, dev)
	save(t, mount(t, dev), "kept")
	out, err := l.east.TerminateInstances(t.Context(), &awsec2.TerminateInstancesInput{InstanceIds: []string{one.ID}})
	if err != nil || out.TerminatingInstances[0].CurrentState.Name != types.InstanceStateNameShuttingDown {
		t.Fatalf("terminate: %v, %v", out, err)
	}
	l.clock.Advance(10 * time.Second)
	if got := one.State(); got != "terminated" {
		t.Errorf("the instance is %s", got)
	}
	l.wantState(id, "in-use attached")
	l.clock.Advance(10 * time.Second)
	l.wantState(id, "available")
	wantCode(t, l.attach(id, one, "/dev/sdf"), "IncorrectState")
	wantCode(t, l.attach(id, two, "/dev/sdf"), "")
	at := mount(t, device(t, two, id))
	wantText(t, at, "kept")
	unmount(t, at)
	l.clock.Advance(2 * time.Hour)
	_, err = l.east.DescribeInstances(t.Context(), &awsec2.DescribeInstancesInput{InstanceIds: []string{one.ID}})
	wantCode(t, err, "InvalidInstanceID.NotFound")
}

// TestStop stops and starts an instance: its volumes stay attached, and come back.
func TestStop(t *testing.T) {
	l := start(t, ec2.Config{})
	i := l.instance(ec2.InstanceSpec{})
	id, later := l.create(), l.create()
	wantCode(t, l.attach(id, i, "/dev/sdf"), "")
	if _, err := l.east.StopInstances(t.Context(), &awsec2.StopInstancesInput{InstanceIds: []string{i.ID}}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.attach(later, i, "/dev/sdg"), "")
	l.wantState(id, "in-use attached")
	if names := i.Machine().Names(); len(names) > 0 {
		t.Errorf("stopped, it has %v", names)
	}
	if _, err := l.east.StartInstances(t.Context(), &awsec2.StartInstancesInput{InstanceIds: []string{i.ID}}); err != nil {
		t.Fatal(err)
	}
	device(t, i, id)
	device(t, i, later)
}

// TestDeviceLate has the machine notice its disk after the cloud says that it is attached, and
// one that was detached before it came.
func TestDeviceLate(t *testing.T) {
	l := start(t, ec2.Config{Delays: ec2.Delays{Device: time.Second}})
	i := l.instance(ec2.InstanceSpec{})
	id, gone := l.create(), l.create()
	wantCode(t, l.attach(id, i, "/dev/sdf"), "")
	wantCode(t, l.attach(gone, i, "/dev/sdg"), "")
	l.wantState(id, "in-use attached")
	if names := i.Machine().Names(); len(names) > 0 {
		t.Errorf("%v is there at once", names)
	}
	wantCode(t, l.detach(gone, false), "")
	l.wantState(gone, "available")
	l.clock.Advance(time.Second)
	device(t, i, id)
	if names := i.Machine().Names(); len(names) != 1 {
		t.Errorf("the machine has %v", names)
	}
}

// TestStuck has an attachment that never comes about. Only force ends it.
func TestStuck(t *testing.T) {
	l := start(t, ec2.Config{})
	i := l.instance(ec2.InstanceSpec{})
	id := l.create()
	l.cloud.Break(ec2.Fault{Kind: ec2.Stuck, Action: "AttachVolume", Count: 1})
	wantCode(t, l.attach(id, i, "/dev/sdf"), "")
	l.clock.Advance(time.Hour)
	l.wantState(id, "in-use attaching")
	wantCode(t, l.detach(id, false), "IncorrectState")
	wantCode(t, l.detach(id, true), "")
	l.wantState(id, "available")
	wantCode(t, l.attach(id, i, "/dev/sdg"), "")
	l.wantState(id, "in-use attached")
}

// TestHang has a call answered late, and one whose caller gives up and yet gets what it asked for.
func TestHang(t *testing.T) {
	l := start(t, ec2.Config{})
	l.cloud.Break(ec2.Fault{Kind: ec2.Hang, Action: "CreateTags", For: 30 * time.Second})
	id := l.create()
	tag := &awsec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.east.CreateTags(ctx, tag); ctx.Err() == nil {
		t.Fatalf("it did not hang: %v", err)
	}
	if n := len(l.volume(id).Tags); n != 0 {
		t.Errorf("%d tags while it hangs", n)
	}
	l.clock.Advance(30 * time.Second)
	for end := time.Now().Add(5 * time.Second); len(l.volume(id).Tags) == 0; {
		if time.Now().After(end) {
			t.Fatal("what the caller did not wait for never happened")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
