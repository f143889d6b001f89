package ec2_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/test/cloud/ec2"
)

// TestTypes creates volumes of each type at and past its limits.
func TestTypes(t *testing.T) {
	l := start(t, ec2.Config{})
	for _, tt := range []struct {
		kind                   string
		size, iops, throughput int32
		multi                  bool
		want                   string // a code
		gotIOPS, gotThroughput int32
	}{
		{"gp2", 1, 0, 0, false, "", 100, 0},
		{"gp2", 100, 0, 0, false, "", 300, 0},
		{"gp2", 16384, 0, 0, false, "", 16000, 0},
		{"gp2", 16385, 0, 0, false, "InvalidParameterValue", 0, 0},
		{"gp2", 10, 300, 0, false, "InvalidParameterCombination", 0, 0},
		{"gp2", 10, 0, 125, false, "InvalidParameterCombination", 0, 0},
		{"gp2", 10, 0, 0, true, "InvalidParameterCombination", 0, 0},
		{"gp3", 1, 0, 0, false, "", 3000, 125},
		{"gp3", 10, 5000, 1000, false, "", 5000, 1000},
		{"gp3", 10, 5001, 0, false, "InvalidParameterCombination", 0, 0},
		{"gp3", 1000, 2999, 0, false, "InvalidParameterValue", 0, 0},
		{"gp3", 1000, 80001, 0, false, "InvalidParameterValue", 0, 0},
		{"gp3", 1000, 0, 124, false, "InvalidParameterValue", 0, 0},
		{"gp3", 1000, 0, 751, false, "InvalidParameterCombination", 0, 0},
		{"gp3", 1000, 20000, 2001, false, "InvalidParameterValue", 0, 0},
		{"io1", 4, 100, 0, false, "", 100, 0},
		{"io1", 4, 0, 0, false, "MissingParameter", 0, 0},
		{"io1", 4, 201, 0, false, "InvalidParameterCombination", 0, 0},
		{"io1", 3, 100, 0, false, "InvalidParameterValue", 0, 0},
		{"io2", 4, 4000, 0, true, "", 4000, 0},
		{"io2", 4, 4001, 0, false, "InvalidParameterCombination", 0, 0},
		{"st1", 125, 0, 0, false, "", 0, 0},
		{"st1", 124, 0, 0, false, "InvalidParameterValue", 0, 0},
		{"sc1", 125, 0, 0, false, "", 0, 0},
		{"sc1", 125, 100, 0, false, "InvalidParameterCombination", 0, 0},
		{"standard", 1024, 0, 0, false, "", 0, 0},
		{"standard", 1025, 0, 0, false, "InvalidParameterValue", 0, 0},
		{"gp4", 1, 0, 0, false, "UnknownVolumeType", 0, 0},
	} {
		in := &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "a"), Size: aws.Int32(tt.size), VolumeType: types.VolumeType(tt.kind)}
		if tt.iops > 0 {
			in.Iops = aws.Int32(tt.iops)
		}
		if tt.throughput > 0 {
			in.Throughput = aws.Int32(tt.throughput)
		}
		if tt.multi {
			in.MultiAttachEnabled = aws.Bool(true)
		}
		out, err := l.east.CreateVolume(t.Context(), in)
		wantCode(t, err, tt.want)
		if t.Failed() {
			t.Fatalf("%+v", tt)
		}
		if err != nil {
			continue
		}
		if aws.ToInt32(out.Iops) != tt.gotIOPS || aws.ToInt32(out.Throughput) != tt.gotThroughput {
			t.Errorf("%+v: %d IOPS, %d MiB/s", tt, aws.ToInt32(out.Iops), aws.ToInt32(out.Throughput))
		}
	}
}

func TestCreateWrong(t *testing.T) {
	l := start(t, ec2.Config{Limits: ec2.Limits{Volumes: 2}})
	zone := aws.String(east + "a")
	for _, tt := range []struct {
		name string
		in   awsec2.CreateVolumeInput
		want string
	}{
		{"no zone", awsec2.CreateVolumeInput{Size: aws.Int32(1)}, "MissingParameter"},
		{"zone of another region", awsec2.CreateVolumeInput{AvailabilityZone: aws.String(west + "a"), Size: aws.Int32(1)}, "InvalidZone.NotFound"},
		{"no size", awsec2.CreateVolumeInput{AvailabilityZone: zone}, "MissingParameter"},
		{"key without encryption", awsec2.CreateVolumeInput{AvailabilityZone: zone, Size: aws.Int32(1), KmsKeyId: aws.String("k")}, "InvalidParameterDependency"},
		{"no such snapshot", awsec2.CreateVolumeInput{AvailabilityZone: zone, SnapshotId: aws.String("snap-0123456789abcdef0")}, "InvalidSnapshot.NotFound"},
		{"what the fake does not know", awsec2.CreateVolumeInput{AvailabilityZone: zone, Size: aws.Int32(1), OutpostArn: aws.String("x")}, "UnknownParameter"},
		{"dry run", awsec2.CreateVolumeInput{AvailabilityZone: zone, Size: aws.Int32(1), DryRun: aws.Bool(true)}, "DryRunOperation"},
		{"tag of another kind", awsec2.CreateVolumeInput{AvailabilityZone: zone, Size: aws.Int32(1), TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeSnapshot, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}},
		}}, "InvalidParameterValue"},
		{"reserved tag", awsec2.CreateVolumeInput{AvailabilityZone: zone, Size: aws.Int32(1), TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("aws:a"), Value: aws.String("b")}}},
		}}, "InvalidParameterValue"},
	} {
		_, err := l.east.CreateVolume(t.Context(), &tt.in)
		wantCode(t, err, tt.want)
		if t.Failed() {
			t.Fatal(tt.name)
		}
	}
	l.create()
	l.create()
	_, err := l.east.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{AvailabilityZone: zone, Size: aws.Int32(1)})
	wantCode(t, err, "VolumeLimitExceeded")
}

// TestToken creates twice with one token, and then with another size.
func TestToken(t *testing.T) {
	l := start(t, ec2.Config{})
	in := &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "a"), Size: aws.Int32(1), ClientToken: aws.String("one")}
	first, err := l.east.CreateVolume(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.east.CreateVolume(t.Context(), in)
	if err != nil || *first.VolumeId != *second.VolumeId {
		t.Errorf("the second call: %v, %v", second, err)
	}
	other := *in
	other.Size = aws.Int32(2)
	_, err = l.east.CreateVolume(t.Context(), &other)
	wantCode(t, err, "IdempotentParameterMismatch")
	if _, err := l.east.DeleteVolume(t.Context(), &awsec2.DeleteVolumeInput{VolumeId: first.VolumeId}); err != nil {
		t.Fatal(err)
	}
	_, err = l.east.CreateVolume(t.Context(), in)
	wantCode(t, err, "IdempotentParameterMismatch")
}

// TestKey encrypts with a key that is there, and with one that is not, which is noticed only
// after the call.
func TestKey(t *testing.T) {
	l := start(t, ec2.Config{KmsKeys: []string{"1234abcd"}, Delays: ec2.Delays{Create: time.Second}})
	for key, there := range map[string]bool{"": true, "1234abcd": true, "arn:aws:kms:us-east-1:123456789012:key/1234abcd": true, "none": false} {
		in := &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "a"), Size: aws.Int32(1), Encrypted: aws.Bool(true)}
		if key != "" {
			in.KmsKeyId = aws.String(key)
		}
		out, err := l.east.CreateVolume(t.Context(), in)
		if err != nil || out.State != types.VolumeStateCreating || !*out.Encrypted || out.KmsKeyId == nil {
			t.Fatalf("%q: %+v, %v", key, out, err)
		}
		l.clock.Advance(time.Second)
		_, err = l.east.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{VolumeIds: []string{*out.VolumeId}})
		if there {
			wantCode(t, err, "")
		} else {
			wantCode(t, err, "InvalidVolume.NotFound")
		}
	}
}

// TestModify grows an attached volume, and is refused until six hours later.
func TestModify(t *testing.T) {
	l := start(t, ec2.Config{Delays: ec2.Delays{Modify: 10 * time.Second, Optimize: 10 * time.Second}})
	i := l.instance(ec2.InstanceSpec{})
	id := l.create()
	wantCode(t, l.attach(id, i, "/dev/sdf"), "")
	modify := func(in awsec2.ModifyVolumeInput) error {
		in.VolumeId = aws.String(id)
		_, err := l.east.ModifyVolume(t.Context(), &in)
		return err
	}
	modification := func() types.VolumeModification {
		out, err := l.east.DescribeVolumesModifications(t.Context(), &awsec2.DescribeVolumesModificationsInput{VolumeIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		return out.VolumesModifications[0]
	}
	_, err := l.east.DescribeVolumesModifications(t.Context(), &awsec2.DescribeVolumesModificationsInput{VolumeIds: []string{id}})
	wantCode(t, err, "InvalidVolumeModification.NotFound")
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(70000)}), "InvalidParameterValue")
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(4), Iops: aws.Int32(4000)}), "InvalidParameterCombination")
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(2), VolumeType: types.VolumeTypeGp2}), "")
	if m := modification(); m.ModificationState != "modifying" || *m.OriginalSize != 1 || *m.TargetSize != 2 || m.TargetVolumeType != "gp2" {
		t.Errorf("at once: %+v", m)
	}
	if v := l.volume(id); *v.Size != 1 {
		t.Errorf("size while it is modified: %d", *v.Size)
	}
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(3)}), "IncorrectModificationState")
	l.clock.Advance(10 * time.Second)
	if m := modification(); m.ModificationState != "optimizing" || *m.Progress != 50 {
		t.Errorf("then: %+v", m)
	}
	if v := l.volume(id); *v.Size != 2 || v.VolumeType != "gp2" || *v.Iops != 100 {
		t.Errorf("while it is optimized: %+v", v)
	}
	if got := sectors(t, i, id); got != 2<<30/512 {
		t.Errorf("the device has %d sectors", got)
	}
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(3)}), "IncorrectModificationState")
	l.clock.Advance(10 * time.Second)
	if m := modification(); m.ModificationState != "completed" || *m.Progress != 100 || m.EndTime == nil {
		t.Errorf("at last: %+v", m)
	}
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(3)}), "VolumeModificationRateExceeded")
	l.clock.Advance(6 * time.Hour)
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(1)}), "InvalidParameterValue")
	wantCode(t, modify(awsec2.ModifyVolumeInput{Size: aws.Int32(3)}), "")
	out, err := l.east.DescribeVolumesModifications(t.Context(), &awsec2.DescribeVolumesModificationsInput{
		Filters: []types.Filter{{Name: aws.String("modification-state"), Values: []string{"modifying"}}},
	})
	if err != nil || len(out.VolumesModifications) != 1 {
		t.Errorf("by filter: %+v, %v", out, err)
	}
}

// TestSnapshots goes to another region and back to a volume.
func TestSnapshots(t *testing.T) {
	l := start(t, ec2.Config{Delays: ec2.Delays{Snapshot: 10 * time.Second, Copy: 10 * time.Second}})
	here, there := l.instance(ec2.InstanceSpec{}), l.instance(ec2.InstanceSpec{Region: west})
	id := l.create("a=b")
	wantCode(t, l.attach(id, here, "/dev/sdf"), "")
	mkfs(t, device(t, here, id))
	at := mount(t, device(t, here, id))
	save(t, at, "first")
	snap := func() (*awsec2.CreateSnapshotOutput, error) {
		return l.east.CreateSnapshot(t.Context(), &awsec2.CreateSnapshotInput{VolumeId: aws.String(id), Description: aws.String("d"), TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeSnapshot, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}},
		}})
	}
	s, err := snap()
	if err != nil {
		t.Fatal(err)
	}
	save(t, at, "second")
	unmount(t, at)
	_, err = snap()
	wantCode(t, err, "SnapshotCreationPerVolumeRateExceeded")
	restore := &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(east + "a"), SnapshotId: s.SnapshotId}
	_, err = l.east.CreateVolume(t.Context(), restore)
	wantCode(t, err, "IncorrectState")
	l.clock.Advance(5 * time.Second)
	got, err := l.east.DescribeSnapshots(t.Context(), &awsec2.DescribeSnapshotsInput{
		OwnerIds: []string{"self"}, Filters: []types.Filter{{Name: aws.String("tag:k"), Values: []string{"v"}}},
	})
	if err != nil || len(got.Snapshots) != 1 || *got.Snapshots[0].Progress != "50%" || got.Snapshots[0].State != types.SnapshotStatePending {
		t.Fatalf("half way: %+v, %v", got, err)
	}
	l.clock.Advance(5 * time.Second)
	if _, err := l.east.CreateVolume(t.Context(), restore); err != nil {
		t.Errorf("when it is complete: %v", err)
	}

	_, err = l.west.CopySnapshot(t.Context(), &awsec2.CopySnapshotInput{SourceRegion: aws.String(west), SourceSnapshotId: s.SnapshotId})
	wantCode(t, err, "InvalidSnapshot.NotFound")
	c, err := l.west.CopySnapshot(t.Context(), &awsec2.CopySnapshotInput{SourceRegion: aws.String(east), SourceSnapshotId: s.SnapshotId, Encrypted: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.east.DescribeSnapshots(t.Context(), &awsec2.DescribeSnapshotsInput{SnapshotIds: []string{*c.SnapshotId}})
	wantCode(t, err, "InvalidSnapshot.NotFound")
	l.clock.Advance(10 * time.Second)
	if _, err := l.east.DeleteSnapshot(t.Context(), &awsec2.DeleteSnapshotInput{SnapshotId: s.SnapshotId}); err != nil {
		t.Fatal(err)
	}
	_, err = l.east.DeleteSnapshot(t.Context(), &awsec2.DeleteSnapshotInput{SnapshotId: s.SnapshotId})
	wantCode(t, err, "InvalidSnapshot.NotFound")
	v, err := l.west.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{AvailabilityZone: aws.String(west + "a"), SnapshotId: c.SnapshotId, Size: aws.Int32(2)})
	if err != nil || !*v.Encrypted || *v.SnapshotId != *c.SnapshotId {
		t.Fatalf("from the copy: %+v, %v", v, err)
	}
	if _, err := l.west.AttachVolume(t.Context(), &awsec2.AttachVolumeInput{VolumeId: v.VolumeId, InstanceId: aws.String(there.ID), Device: aws.String("/dev/sdf")}); err != nil {
		t.Fatal(err)
	}
	at = mount(t, device(t, there, *v.VolumeId))
	wantText(t, at, "first")
	unmount(t, at)
}

func TestSnapshotsOfInstance(t *testing.T) {
	l := start(t, ec2.Config{})
	i := l.instance(ec2.InstanceSpec{})
	a, b, c := l.create("n=a"), l.create("n=b"), l.create("n=c")
	for n, id := range []string{a, b, c} {
		wantCode(t, l.attach(id, i, "/dev/sd"+string(rune('f'+n))), "")
	}
	out, err := l.east.CreateSnapshots(t.Context(), &awsec2.CreateSnapshotsInput{
		CopyTagsFromSource:    types.CopyTagsFromSourceVolume,
		InstanceSpecification: &types.InstanceSpecification{InstanceId: aws.String(i.ID), ExcludeDataVolumeIds: []string{b}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range out.Snapshots {
		got = append(got, *s.VolumeId+" "+*s.Tags[0].Value+" "+string(s.State))
	}
	if diff := cmp.Diff([]string{a + " a pending", c + " c pending"}, got); diff != "" {
		t.Errorf("snapshots (-want +got):\n%s", diff)
	}
}
