package ebs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

// TestList: one request for each page, of ours alone, by name and by ID.
func TestList(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	const n = 2*pageSize + 3
	for i := range n {
		s := spec(fmt.Sprintf("%05d", i))
		if _, err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	s := spec("elsewhere")
	s.Tags[block.TagNamespace] = "other"
	if _, err := p.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c.Foreign(t, "foreign", gib)
	for _, tt := range []struct {
		what         string
		q            block.Query
		disks, calls int
	}{
		{"all", block.Query{}, n, 3},
		{"names", block.Query{Names: []string{"00001", "01000", "none", "0000*", "elsewhere"}}, 2, 1},
		{"IDs", block.Query{IDs: []string{"vol-0123456789abcdef0"}}, 0, 1},
	} {
		c.ResetCounts()
		tt.q.Namespace = "test"
		list, err := p.List(t.Context(), tt.q)
		if err != nil || len(list) != tt.disks {
			t.Errorf("%s: %d disks, %v", tt.what, len(list), err)
		}
		if got := c.Counts()["DescribeVolumes"].Calls; got != tt.calls {
			t.Errorf("%s: %d calls, want %d", tt.what, got, tt.calls)
		}
	}
	var names []string
	for i := range 400 {
		names = append(names, fmt.Sprintf("%05d", i))
	}
	if list, err := p.List(t.Context(), block.Query{Namespace: "test", Names: names}); err != nil || len(list) != 400 {
		t.Errorf("400 names: %d disks, %v", len(list), err)
	}
}

// TestCreate: each option comes to the disk, with our tags, the pool's, and a name for people.
func TestCreate(t *testing.T) {
	c := newCloud(t, still())
	conf := c.pool()
	conf.Tags = []string{"cost-center=4711"}
	p := c.open(t, conf, "")
	s := spec("my_db")
	s.Size, s.Type, s.IOPS, s.Throughput = 8*gib, "gp3", 4000, 200
	d := c.make(t, p, s)
	if diff := cmp.Diff(s.Tags, d.Tags); diff != "" {
		t.Error(diff)
	}
	if d.Size != 8*gib || d.Type != "gp3" || d.IOPS != 4000 || d.Zone != east+"a" || d.State != block.Ready {
		t.Errorf("the disk is %+v", d)
	}
	v, err := p.one(t.Context(), d.ID)
	if err != nil || aws.ToInt32(v.Throughput) != 200 {
		t.Errorf("%+v, %v", v, err)
	}
	got := map[string]string{}
	for _, tag := range v.Tags {
		got[*tag.Key] = *tag.Value
	}
	for k, want := range map[string]string{"Name": "my_db", "cost-center": "4711", "remora:volume": "my_db", "remora:pool": "test", "remora:id": s.UUID} {
		if got[k] != want {
			t.Errorf("tag %s is %q", k, got[k])
		}
	}
	for name, change := range map[string]func(*block.Spec){
		"io1":      func(s *block.Spec) { s.Type, s.Size, s.IOPS = "io1", 4*gib, 200 },
		"io2":      func(s *block.Spec) { s.Type, s.Size, s.IOPS = "io2", 4*gib, 200 },
		"gp2":      func(s *block.Spec) { s.Type = "gp2" },
		"st1":      func(s *block.Spec) { s.Type, s.Size = "st1", 125*gib },
		"sc1":      func(s *block.Spec) { s.Type, s.Size = "sc1", 125*gib },
		"standard": func(s *block.Spec) { s.Type = "standard" },
	} {
		s := spec(name)
		change(&s)
		if d := c.make(t, p, s); d.Type != name || d.Size != s.Size || s.IOPS != 0 && d.IOPS != s.IOPS {
			t.Errorf("%s: the disk is %+v", name, d)
		}
	}
}

// TestToken: a disk is made once for a token, by whoever asks with whatever else; a token that was
// spent is told.
func TestToken(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	s := spec("data")
	d := c.make(t, p, s)
	for range 2 {
		s.Size, s.Zone = s.Size+gib, east+"b" // as another host may ask
		again, err := p.Create(t.Context(), s)
		if err != nil || again.ID != d.ID || again.Size != gib {
			t.Errorf("%+v, %v", again, err)
		}
	}
	for range 2 {
		if err := p.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	_, err := p.Create(t.Context(), spec("data"))
	wantErr(t, err, errdefs.ErrExists, "token")
	if errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("it is invalid too: %v", err)
	}
}

// TestKMS: a key that cannot be used is noticed after the call, and told as what it is.
func TestKMS(t *testing.T) {
	conf := quick()
	conf.KmsKeys = []string{"alias/good"}
	c := newCloud(t, conf)
	d := c.daemon(t, ec2.InstanceSpec{})
	d.gone = 500 * time.Millisecond
	drv := d.driver(t)
	if err := drv.Create(t.Context(), "good", map[string]string{"encryptionKey": "alias/good"}); err != nil {
		t.Error(err)
	}
	if err := drv.Create(t.Context(), "default", map[string]string{"encrypted": "true"}); err != nil {
		t.Error(err)
	}
	err := drv.Create(t.Context(), "bad", map[string]string{"kms_key": "alias/bad"})
	wantErr(t, err, errdefs.ErrUnavailable, "alias/bad", "key of KMS")
	p := c.open(t, d.conf, d.metadata)
	list, err := p.List(t.Context(), all)
	if err != nil || len(list) != 2 || !list[0].Encrypted || !list[1].Encrypted {
		t.Errorf("%+v, %v", list, err)
	}
	// Where it fails in the other way.
	failed := p.disk(types.Volume{VolumeId: aws.String("vol-1"), State: types.VolumeStateError, Encrypted: aws.Bool(true), KmsKeyId: aws.String("arn:k")})
	if failed.State != block.Failed || !strings.Contains(failed.Reason, "arn:k") {
		t.Errorf("%+v", failed)
	}
	if plain := p.disk(types.Volume{State: types.VolumeStateError}); plain.State != block.Failed || strings.Contains(plain.Reason, "KMS") {
		t.Errorf("%+v", plain)
	}
}

// TestLag: what is too new to be known is no reason to say that it is gone.
func TestLag(t *testing.T) {
	conf := still()
	conf.Lag = ec2.Lag{ID: time.Hour, List: time.Hour, Tags: time.Hour, TagFilter: time.Hour}
	c := newCloud(t, conf)
	_, metadata := c.instance(t, ec2.InstanceSpec{})
	p := c.open(t, c.pool(), metadata)
	d, err := p.Create(t.Context(), spec("data"))
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, p.Attach(t.Context(), d, c.self(t, p)), errdefs.ErrUnavailable, d.ID, "not known everywhere yet")
	wantErr(t, p.SetTags(t.Context(), d, block.Tags{"fs": "ext4"}), errdefs.ErrUnavailable, d.ID)
	d.Created = d.Created.Add(-time.Hour)
	wantErr(t, p.SetTags(t.Context(), d, block.Tags{"fs": "ext4"}), errdefs.ErrNotFound)
}

// TestTags: those that are named change, the others stay.
func TestTags(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	d := c.make(t, p, spec("data"))
	text := "déjà vu, 100% / a=b:c"
	for _, tags := range []block.Tags{{"fs": "ext4", "o.x": text}, {"fs": "", "formatted": "now"}, {block.TagName: "renamed"}, {"none": ""}, {}} {
		if err := p.SetTags(t.Context(), d, tags); err != nil {
			t.Fatal(err)
		}
	}
	want := spec("data").Tags
	want["o.x"], want["formatted"], want[block.TagName] = text, "now", "renamed"
	if diff := cmp.Diff(want, c.look(t, p, d.ID).Tags); diff != "" {
		t.Error(diff)
	}
	v, err := p.one(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range v.Tags {
		if *tag.Key == nameTag && *tag.Value != "renamed" {
			t.Errorf("people see %q", *tag.Value)
		}
	}
}

// TestFind: disks that are not ours are found by ID and by name, but for those that boot a machine;
// one that several hosts could write to is not taken in.
func TestFind(t *testing.T) {
	c := newCloud(t, still())
	i, metadata := c.instance(t, ec2.InstanceSpec{})
	p := c.open(t, c.pool(), metadata)
	c.make(t, p, spec("ours"))
	plain := c.Foreign(t, "db*", gib)
	c.Foreign(t, "db2", gib)
	multi := c.volume(t, "multi", &awsec2.CreateVolumeInput{Size: aws.Int32(4), VolumeType: types.VolumeTypeIo2, Iops: aws.Int32(100), MultiAttachEnabled: aws.Bool(true)})
	for ref, want := range map[string]int{"": 3, plain: 1, "db*": 1, "ours": 0, "vol-0123456789abcdef0": 0, "nobody": 0} {
		if got, err := p.Find(t.Context(), ref); err != nil || len(got) != want {
			t.Errorf("%q: %+v, %v", ref, got, err)
		}
	}
	found, err := p.Find(t.Context(), multi)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, p.Adopt(t.Context(), found[0], block.Tags{block.TagUUID: "1"}), errdefs.ErrInvalid, "multi-attach", "modify-volume")
	wantErr(t, p.Attach(t.Context(), found[0].Disk, c.self(t, p)), errdefs.ErrInvalid, "multi-attach")
	found[0].Facts = nil
	_, err = c.sdk().AttachVolume(t.Context(), &awsec2.AttachVolumeInput{VolumeId: aws.String(multi), InstanceId: aws.String(i.ID), Device: aws.String("/dev/sdz")})
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, p.Attach(t.Context(), found[0].Disk, c.self(t, p)), errdefs.ErrInvalid, "multi-attach")
	was := rootNames
	t.Cleanup(func() { rootNames = was })
	rootNames = append([]string{"/dev/sdz"}, was...) // the fake has nothing that boots
	if got, err := p.Find(t.Context(), ""); err != nil || len(got) != 2 {
		t.Errorf("with a disk that boots a machine: %+v, %v", got, err)
	}
	if got, err := p.Find(t.Context(), multi); err != nil || len(got) != 1 {
		t.Errorf("such a disk by its ID: %+v, %v", got, err)
	}
	found, err = p.Find(t.Context(), "db*")
	if err != nil {
		t.Fatal(err)
	}
	tags := spec("taken").Tags
	if err := p.Adopt(t.Context(), found[0], tags); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tags, c.look(t, p, plain).Tags); diff != "" {
		t.Error(diff)
	}
	if !boots(types.Volume{Attachments: []types.VolumeAttachment{{Device: aws.String("/dev/sda1")}}}) ||
		!boots(types.Volume{Attachments: []types.VolumeAttachment{{Device: aws.String("/dev/sdf"), DeleteOnTermination: aws.Bool(true)}}}) ||
		boots(types.Volume{Attachments: []types.VolumeAttachment{{Device: aws.String("/dev/sdf")}}}) {
		t.Error("which disks boot a machine")
	}
}
