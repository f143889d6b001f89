package ebs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/ec2"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

// still is a cloud in which everything happens at once.
func still() ec2.Config {
	return ec2.Config{Limits: ec2.Limits{Unthrottled: true, SnapshotEvery: 1, ModifyEvery: 1}}
}

func (c *cloud) self(t *testing.T, p *provider) block.Host {
	t.Helper()
	h, err := p.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// make makes a disk, and returns it as a list has it.
func (c *cloud) make(t *testing.T, p *provider, s block.Spec) block.Disk {
	t.Helper()
	d, err := p.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return c.look(t, p, d.ID)
}

func (c *cloud) look(t *testing.T, p *provider, id string) block.Disk {
	t.Helper()
	list, err := p.List(t.Context(), block.Query{Namespace: "test", IDs: []string{id}})
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: %v, %v", id, list, err)
	}
	return list[0]
}

// TestAttach: a disk is attached once, to one instance, and found by its serial whatever it was
// asked to be called.
func TestAttach(t *testing.T) {
	c := newCloud(t, still())
	i, metadata := c.instance(t, ec2.InstanceSpec{})
	p := c.open(t, c.pool(), metadata)
	_, metadata = c.instance(t, ec2.InstanceSpec{})
	other := c.open(t, c.pool(), metadata)
	d, self := c.make(t, p, spec("data")), c.self(t, p)
	for range 2 {
		if err := p.Attach(t.Context(), d, self); err != nil {
			t.Fatal(err)
		}
	}
	d = c.look(t, p, d.ID)
	if len(d.Holders) != 1 || d.Holders[0].Host != i.ID || d.Holders[0].State != block.Attached || time.Since(d.Holders[0].Since) > time.Minute {
		t.Errorf("holders are %+v", d.Holders)
	}
	wantErr(t, other.Attach(t.Context(), d, c.self(t, other)), errdefs.ErrInUse)
	serial := strings.Replace(d.ID, "-", "", 1)
	for v, want := range map[string]bool{serial: true, d.ID: false, serial + "0": false, "": false, "vol": false} {
		if got := p.Match(d, block.Device{Name: "nvme1n1", Serial: v, Links: []string{d.Facts[factDevice]}}); got != want {
			t.Errorf("serial %q matches: %v", v, got)
		}
	}
	if p.Match(block.Disk{ID: "vol-"}, block.Device{Serial: "vol"}) {
		t.Error("a disk without an ID is a device")
	}
	for range 2 {
		if err := p.Detach(t.Context(), d, i.ID, false); err != nil {
			t.Fatal(err)
		}
	}
	if d = c.look(t, p, d.ID); len(d.Holders) != 0 {
		t.Errorf("holders are %+v", d.Holders)
	}
	if err := p.Detach(t.Context(), d, "i-0123456789abcdef0", true); err != nil {
		t.Errorf("from an instance that does not exist: %v", err)
	}
}

// TestDeviceNames: names that other tools use, that were just given back, or that this machine has,
// are passed over, and the large range is used when the small one is full.
func TestDeviceNames(t *testing.T) {
	conf := still()
	conf.Limits.Attachments = 60
	c := newCloud(t, conf)
	i, metadata := c.instance(t, ec2.InstanceSpec{})
	pool := c.pool()
	pool.Dev = i.Machine().Dev()
	if err := os.WriteFile(filepath.Join(pool.Dev, "sdg"), nil, 0o600); err != nil { // an ephemeral disk
		t.Fatal(err)
	}
	few, _ := allNames()
	for _, name := range few[:9] { // f to n, g too
		if name == "xvdg" {
			continue
		}
		id := c.volume(t, "foreign-"+name, &awsec2.CreateVolumeInput{Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3})
		device := "/dev/sd" + strings.TrimPrefix(name, "xvd")
		if strings.Compare(name, "xvdj") < 0 {
			device = "/dev/" + name
		}
		_, err := c.sdk().AttachVolume(t.Context(), &awsec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(i.ID), Device: aws.String(device)})
		if err != nil {
			t.Fatal(err)
		}
	}
	p := c.open(t, pool, metadata)
	self, seen := c.self(t, p), map[string]bool{}
	c.ResetCounts()
	for n := range 12 {
		d := c.make(t, p, spec(fmt.Sprintf("%04d", n)))
		if err := p.Attach(t.Context(), d, self); err != nil {
			t.Fatal(err)
		}
		name := c.look(t, p, d.ID).Facts[factDevice]
		if seen[name] || name == "/dev/xvdg" || !strings.HasPrefix(name, "/dev/xvd") {
			t.Errorf("disk %d is %s", n, name)
		}
		seen[name] = true
	}
	if len(seen) != 12 {
		t.Errorf("names are %v", seen)
	}
	if n := c.Counts()["AttachVolume"]; n.Failed > 2*maxNames {
		t.Errorf("%d names were refused", n.Failed)
	}
	first := p.names.taken
	for name, disk := range first {
		if disk == "" || !seen["/dev/"+name] {
			continue
		}
		if err := p.Detach(t.Context(), block.Disk{ID: disk}, self.ID, false); err != nil {
			t.Fatal(err)
		}
		if p.names.isFree(name, true) || !p.names.isFree(name, false) {
			t.Errorf("%s, just given back, is not left alone", name)
		}
		break
	}
}

// TestNoRoom: an instance that is full says so, as does one without a name left.
func TestNoRoom(t *testing.T) {
	conf := still()
	conf.Limits.Attachments = 2
	c := newCloud(t, conf)
	_, metadata := c.instance(t, ec2.InstanceSpec{})
	p := c.open(t, c.pool(), metadata)
	self := c.self(t, p)
	for n := range 3 {
		err := p.Attach(t.Context(), c.make(t, p, spec(fmt.Sprintf("%04d", n))), self)
		if n < 2 && err != nil {
			t.Fatal(err)
		}
		if n == 2 {
			wantErr(t, err, errdefs.ErrInvalid, self.ID, "no room for another disk", "larger type")
		}
	}
	few, many := allNames()
	for n := range len(few) + len(many) {
		p.names.learn(fmt.Sprint(n), append(few, many...)[n])
	}
	wantErr(t, p.Attach(t.Context(), block.Disk{ID: "vol-0123456789abcdef0"}, self), errdefs.ErrInvalid, "names")
}

// TestXen: on an instance where a disk cannot be told from another nothing is attached.
func TestXen(t *testing.T) {
	c := newCloud(t, still())
	i, metadata := c.instance(t, ec2.InstanceSpec{Type: "m4.large"})
	p := c.open(t, c.pool(), metadata)
	d := c.make(t, p, spec("data"))
	wantErr(t, p.Attach(t.Context(), d, c.self(t, p)), errdefs.ErrUnsupported, i.ID, "m4.large", "serial", "Nitro")
	if n := c.Counts()["AttachVolume"].Calls; n != 0 {
		t.Errorf("attached %d times", n)
	}
	for kind, want := range map[string]bool{"t2.micro": true, "i3.large": true, "i3.metal": false, "t3.micro": false, "m5.large": false, "x1e.32xlarge": true, "m8g.large": false} {
		if isXen(kind) != want {
			t.Errorf("%s: %v", kind, !want)
		}
	}
}

// TestZones: a disk that is in another zone than the host is told with both, before anything is done.
func TestZones(t *testing.T) {
	c := newCloud(t, still())
	i, metadata := c.instance(t, ec2.InstanceSpec{Zone: east + "b"})
	p := c.open(t, c.pool(), metadata)
	d := c.make(t, p, spec("data")) // in a
	wantErr(t, p.Attach(t.Context(), d, c.self(t, p)), errdefs.ErrInvalid, "zone "+east+"a", "zone "+east+"b", i.ID)
	s := spec("here")
	s.Zone = ""
	if got := c.make(t, p, s).Zone; got != east+"b" {
		t.Errorf("a disk without a zone is in %s", got)
	}
	conf := c.pool()
	conf.Zone = east + "c"
	s = spec("there")
	s.Zone = ""
	if got := c.make(t, c.open(t, conf, metadata), s).Zone; got != east+"c" {
		t.Errorf("a disk of the pool's zone is in %s", got)
	}
	conf = c.pool()
	conf.Region = "eu-west-1"
	s.UUID, s.Zone = spec("west").UUID, ""
	_, err := c.open(t, conf, metadata).Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrInvalid, east+"b", "eu-west-1", "zone=")
	s.Zone = east + "z"
	_, err = p.Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrInvalid, `"us-east-1z"`, "region "+east)
	s.Zone = ""
	_, err = c.open(t, c.pool(), "http://127.0.0.1:1").Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrUnavailable, "zone", "metadata service", "-o zone=")
}

// TestGone: an instance that is stopped or terminated can write no more, one that only does not
// answer may.
func TestGone(t *testing.T) {
	conf := still()
	conf.Delays.Terminate = 50 * time.Millisecond
	clock := fake.NewManual(time.Now())
	conf.Clock = clock
	c := newCloud(t, conf)
	p := c.open(t, c.pool(), "")
	for _, end := range []string{"stop", "terminate"} {
		i, _ := c.instance(t, ec2.InstanceSpec{})
		i.Impair(true)
		want := func(want bool) {
			t.Helper()
			if got, err := p.Gone(t.Context(), i.ID); err != nil || got != want {
				t.Errorf("%s, %s: gone is %v, %v", end, i.State(), got, err)
			}
		}
		want(false)
		var err error
		if end == "stop" {
			_, err = c.sdk().StopInstances(t.Context(), stop(i.ID))
		} else {
			_, err = c.sdk().TerminateInstances(t.Context(), &awsec2.TerminateInstancesInput{InstanceIds: []string{i.ID}})
		}
		if err != nil {
			t.Fatal(err)
		}
		want(false) // it is on its way, and may still write
		clock.Advance(conf.Delays.Terminate)
		want(true)
	}
	const unknown = "i-0123456789abcdef0"
	for _, since := range []time.Duration{0, unknownFor / 2, 2 * unknownFor} {
		if since > 0 {
			p.absent[unknown] = time.Now().Add(-since)
		}
		if got, err := p.Gone(t.Context(), unknown); err != nil || got != (since > unknownFor) {
			t.Errorf("one that is not known for %s: gone is %v, %v", since, got, err)
		}
	}
	c.Break(ec2.Fault{Kind: ec2.Refuse, Action: "DescribeInstances", Code: "UnauthorizedOperation", Message: "No."})
	if got, err := p.Gone(t.Context(), unknown); err == nil || got {
		t.Errorf("where it may not be asked: %v, %v", got, err)
	}
}

func stop(id string) *awsec2.StopInstancesInput {
	return &awsec2.StopInstancesInput{InstanceIds: []string{id}}
}
