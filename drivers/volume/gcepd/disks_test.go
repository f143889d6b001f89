package gcepd

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

// spec is a disk to be made.
func spec(n, name string) block.Spec {
	uuid := "00000000-0000-8000-8000-00000000000" + n
	return block.Spec{UUID: uuid, Size: 10 * gib, Tags: block.Tags{block.TagUUID: uuid, block.TagNamespace: "remora", block.TagName: name, "o.size": "10g"}}
}

// made makes a disk and waits for it.
func made(t testing.TB, p *provider, s block.Spec) block.Disk {
	t.Helper()
	d, err := p.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return until(t, p, d.ID, func(d block.Disk) bool { return d.State == block.Ready })
}

// until waits until a disk is as it should be.
func until(t testing.TB, p *provider, id string, is func(block.Disk) bool) block.Disk {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, err := p.List(t.Context(), block.Query{Namespace: "remora", IDs: []string{id}})
		if err == nil && len(all) == 1 && is(all[0]) {
			return all[0]
		}
		if time.Now().After(end) {
			t.Fatalf("disk %s: %+v %v", id, all, err)
		}
	}
}

// TestCreate: a token makes one disk, whatever gets lost, and none when that is gone.
func TestCreate(t *testing.T) {
	c := newCloud(t, quick())
	p := c.here(t, func(conf *config) { conf.Labels = []string{"env=prod"} })
	c.Calls.Add(fake.Fault{Call: "disks.insert", What: fake.Lose, Times: 1})
	if _, err := p.Create(t.Context(), spec("1", "My_Data")); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("an answer that was lost: %v", err)
	}
	d := made(t, p, spec("1", "My_Data"))
	again := made(t, p, spec("1", "My_Data"))
	if d.ID != again.ID || d.ID != zoneA+"/remora-"+spec("1", "").UUID || d.Tags[block.TagName] != "My_Data" || d.Tags["o.size"] != "10g" || d.Type != "pd-balanced" {
		t.Errorf("%+v, then %+v", d, again)
	}
	real := c.get(t, d.ID)
	if real.Labels["env"] != "prod" || real.Labels["remora_pool"] != "remora" || !strings.Contains(real.Description, `"My_Data"`) {
		t.Errorf("labels %v, description %q", real.Labels, real.Description)
	}
	if err := p.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for range 2 { // deleting, and gone
		if err := p.Delete(t.Context(), d); err != nil {
			t.Errorf("delete again: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if d, err := p.Create(t.Context(), spec("1", "My_Data")); !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("with a token that was spent: %+v %v", d, err)
	}
	c.Calls.Add(fake.Fault{Call: "disks.insert", What: fake.Errored, Times: 1})
	if d, err := p.Create(t.Context(), spec("2", "fails")); err != nil || d.State != block.Creating {
		t.Fatalf("%+v %v", d, err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all, err := p.List(t.Context(), block.Query{Namespace: "remora", Names: []string{"fails"}})
		if err == nil && len(all) == 1 && all[0].State == block.Failed && strings.Contains(all[0].Reason, "Internal error") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("an operation that fails: %+v %v", all, err)
		}
	}
}

// TestRefused: what Google refuses is said with the zone, and makes nothing.
func TestRefused(t *testing.T) {
	conf := quick()
	conf.QuotaGB = 20
	c := newCloud(t, conf)
	p := c.here(t)
	s := spec("1", "a")
	s.Size = 30 * gib
	_, err := p.Create(t.Context(), s)
	wantErr(t, "quota", err, errdefs.ErrInvalid, "zone us-central1-a", "DISKS_TOTAL_GB", "larger quota")
	s = spec("2", "b")
	s.Zone = "us-moon1-a"
	_, err = p.Create(t.Context(), s)
	wantErr(t, "zone", err, errdefs.ErrInvalid, "us-moon1-a", "zones list")
	s = spec("3", "c")
	s.KMSKey = "projects/p/locations/asia-east1/keyRings/r/cryptoKeys/k"
	_, err = p.Create(t.Context(), s)
	wantErr(t, "key", err, errdefs.ErrInvalid, "region of the disk")
	s = spec("4", "d")
	s.Snapshot = &block.Snapshot{ID: "no-such"}
	_, err = p.Create(t.Context(), s)
	wantErr(t, "snapshot", err, errdefs.ErrInvalid, "no-such", "projects/P/global/snapshots")
	err = p.Attach(t.Context(), block.Disk{ID: zoneA + "/x", Facts: map[string]string{factAccess: "READ_WRITE_MANY"}}, block.Host{ID: zoneA + "/host-1"})
	wantErr(t, "multi-writer", err, errdefs.ErrInvalid, "READ_WRITE_MANY", "second writer")
	err = p.Adopt(t.Context(), block.Foreign{Disk: p.disk(&compute.Disk{Name: "x", Zone: "zones/" + zoneA, AccessMode: "READ_ONLY_MANY"})}, block.Tags{})
	wantErr(t, "adopt", err, errdefs.ErrInvalid, "READ_ONLY_MANY")
	if n := c.Calls.Counts()["disks.insert"]; n.Calls-n.Failed != 0 {
		t.Errorf("inserts: %+v", n)
	}
}

// TestCutOff: a zone that is cut off has not lost its disks, and others go on.
func TestCutOff(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	c := newCloud(t, quick())
	d := c.daemon(t, zoneA)
	d.conf.Refresh = time.Second
	drv := d.driver(t)
	for name, zone := range map[string]string{"near": zoneA, "far": zoneC} {
		if err := drv.Create(t.Context(), name, map[string]string{"zone": zone}); err != nil {
			t.Fatal(err)
		}
	}
	names := func(drv volume.Driver) (all []string) {
		for info, err := range drv.Volumes(t.Context()) {
			if err == nil {
				all = append(all, info.Name)
			}
		}
		return all
	}
	both := []string{"far", "near"}
	c.Unreachable(zoneC, true)
	time.Sleep(2500 * time.Millisecond) // two lists
	if got := names(drv); !slices.Equal(got, both) {
		t.Errorf("while a zone is cut off: %q", got)
	}
	wantErr(t, "ping", drv.(volume.Pinger).Ping(t.Context()), errdefs.ErrUnavailable, zoneC, "zones = ")
	if err := drv.Create(t.Context(), "near", nil); err != nil {
		t.Errorf("what is in another zone: %v", err)
	}
	ctx := t.Context()
	_, err := c.open(t, d.conf, d.metadata).List(ctx, block.Query{Namespace: "test", Names: []string{"far"}})
	wantErr(t, "by name", err, errdefs.ErrUnavailable, zoneC)
	only := d.conf
	only.Zones = []string{zoneA}
	if all, err := c.open(t, only, d.metadata).List(ctx, block.Query{Namespace: "test"}); err != nil || len(all) != 1 {
		t.Errorf("a pool without that zone: %v %v", all, err)
	}
	if err := drv.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	drv = d.driver(t) // from its file
	_ = drv.(volume.Pinger).Ping(ctx)
	if got := names(drv); !slices.Equal(got, both) {
		t.Errorf("after a start: %q", got)
	}
	c.Unreachable(zoneC, false)
	if err := drv.Remove(ctx, "far"); err != nil {
		t.Error(err)
	}
}

// TestTags: a change that another host makes meanwhile is kept, and so are labels of others.
func TestTags(t *testing.T) {
	c := newCloud(t, quick())
	p, q := c.here(t), c.here(t)
	d := made(t, p, spec("1", "a"))
	c.Calls.Reset()
	for _, step := range []struct {
		p    *provider
		tags block.Tags
	}{{p, block.Tags{"x": "1"}}, {q, block.Tags{"y": "/2"}}, {p, block.Tags{"x": "", "z": "3"}}} {
		if _, err := step.p.List(t.Context(), block.Query{Namespace: "remora", IDs: []string{d.ID}}); err != nil {
			t.Fatal(err)
		}
	} // all have seen the same labels
	for _, tags := range []block.Tags{{"x": "1"}, {"x": "1"}} {
		if err := p.SetTags(t.Context(), d, tags); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.SetTags(t.Context(), d, block.Tags{"y": "/2"}); err != nil {
		t.Fatal(err)
	}
	got := until(t, p, d.ID, func(block.Disk) bool { return true }).Tags
	if got["x"] != "1" || got["y"] != "/2" || got[block.TagName] != "a" {
		t.Errorf("tags %v", got)
	}
	if n := c.Calls.Counts()["disks.setLabels"]; n.Calls != 3 || n.Failed != 1 {
		t.Errorf("changes asked for: %+v", n)
	}
}

// TestGone: only an instance that is stopped, or does not exist, is gone.
func TestGone(t *testing.T) {
	c := newCloud(t, quick())
	p := c.here(t)
	name, _, _ := c.instance(t, zoneA)
	gone := func(host string) bool {
		yes, err := p.Gone(t.Context(), host)
		if err != nil {
			t.Errorf("%s: %v", host, err)
		}
		return yes
	}
	if gone(zoneA + "/" + name) {
		t.Error("one that runs is gone")
	}
	if !gone(zoneA+"/none") || !gone(zoneB+"/"+name) {
		t.Error("one that does not exist is not gone")
	}
	if err := c.Preempt(zoneA, name); err != nil {
		t.Fatal(err)
	}
	if !gone(zoneA + "/" + name) {
		t.Error("one that was preempted is not gone")
	}
	c.Unreachable(zoneA, true)
	if yes, err := p.Gone(t.Context(), zoneA+"/"+name); yes || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("in a zone that is cut off: %v %v", yes, err)
	}
	pool := c.pool()
	pool.Project = "wrong-project"
	if yes, err := c.open(t, pool, "").Gone(t.Context(), zoneA+"/"+name); yes || err == nil {
		t.Errorf("in a project that does not exist: %v %v", yes, err)
	}
}

// TestMatch: a disk is known by what the device says of itself.
func TestMatch(t *testing.T) {
	p := &provider{}
	d := block.Disk{ID: zoneA + "/remora-1"}
	for _, tt := range []struct {
		device block.Device
		want   bool
	}{
		{block.Device{Name: "sdb", Vendor: "Google", Model: "PersistentDisk", Serial: "remora-1"}, true},
		{block.Device{Name: "nvme0n2", Model: "nvme_card-pd", Serial: "nvme_card-pd", Links: []string{"google-remora-1"}}, true},
		{block.Device{Name: "sdb", Vendor: "Google", Model: "PersistentDisk", Serial: "remora-12"}, false},
		{block.Device{Name: "sdb", Vendor: "QEMU", Model: "HARDDISK", Serial: "remora-1"}, false},
		{block.Device{Name: "remora-1", Links: []string{"google-remora-1-part1", "google-persistent-disk-1"}}, false},
	} {
		if got := p.Match(d, tt.device); got != tt.want {
			t.Errorf("%+v: %v", tt.device, got)
		}
	}
}

// TestAttached: what was attached by others, or fails late, is dealt with.
func TestAttached(t *testing.T) {
	conf := quick()
	conf.LateErrors, conf.BusyFails = true, false
	c := newCloud(t, conf)
	one, two := c.here(t), c.here(t)
	self := func(p *provider) block.Host {
		h, err := p.Self(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	has := func(p *provider) func(block.Disk) bool {
		return func(d block.Disk) bool {
			return len(d.Holders) == 1 && d.Holders[0].Host == self(p).ID && d.Holders[0].State == block.Attached && !d.Holders[0].Since.IsZero()
		}
	}
	d := made(t, one, spec("1", "a"))
	for range 3 {
		if err := one.Attach(t.Context(), d, self(one)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, one, d.ID, has(one))
	if err := two.Attach(t.Context(), d, self(two)); err != nil { // the cloud says so late
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	until(t, two, d.ID, has(one))
	for range 3 {
		if err := one.Detach(t.Context(), d, self(one).ID, false); err != nil {
			t.Fatal(err)
		}
	}
	until(t, one, d.ID, func(d block.Disk) bool { return len(d.Holders) == 0 })

	// By another tool, under another name.
	zone, name := split(self(two).ID)
	op, err := c.sdk.Instances.AttachDisk(project, zone, name, &compute.AttachedDisk{Source: "projects/" + project + "/zones/" + zoneA + "/disks/" + last(d.ID), DeviceName: "other"}).Do()
	if err != nil {
		t.Fatal(err)
	}
	c.end(t, op)
	if err := one.Detach(t.Context(), d, self(two).ID, true); err != nil {
		t.Fatal(err)
	}
	until(t, one, d.ID, func(d block.Disk) bool { return len(d.Holders) == 0 })

	c.Calls.Add(fake.Fault{Call: "instances.attachDisk", What: fake.Errored, Times: 1})
	if err := one.Attach(t.Context(), d, self(one)); err != nil {
		t.Fatal(err)
	}
	until(t, one, d.ID, func(d block.Disk) bool {
		return len(d.Holders) == 1 && d.Holders[0].State == block.Stuck && strings.Contains(d.Reason, "Internal error")
	})
	if err := one.Detach(t.Context(), d, zoneA+"/none", true); err != nil {
		t.Errorf("from an instance that does not exist: %v", err)
	}
}

// TestOtherZone: a snapshot is of the project, so that a clone can be in another zone, with the key
// of what it was made of.
func TestOtherZone(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	c := newCloud(t, quick())
	here, there := c.daemon(t, zoneA), c.daemon(t, zoneB)
	one := here.driver(t)
	key := "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
	if err := one.Create(t.Context(), "data", map[string]string{"kms_key": key, "volumeType": "pd-ssd"}); err != nil {
		t.Fatal(err)
	}
	target := func(name string) string {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	at, err := one.Mount(t.Context(), "data", target("data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := one.Unmount(t.Context(), "data", at); err != nil {
		t.Fatal(err)
	}
	two := there.driver(t)
	_ = two.(volume.Pinger).Ping(t.Context())
	_, err = two.Mount(t.Context(), "data", target("no"))
	wantErr(t, "mount in another zone", err, errdefs.ErrInvalid, zoneA, zoneB, "remora volume move data --zone "+zoneB)
	if err := two.(volume.Cloner).Clone(t.Context(), "copy", "data", "", map[string]string{"zone": zoneB}); err != nil {
		t.Fatal(err)
	}
	at, err = two.Mount(t.Context(), "copy", target("copy"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(at, "f")); err != nil || string(b) != "x" {
		t.Errorf("%q %v", b, err)
	}
	if err := two.Unmount(t.Context(), "copy", at); err != nil {
		t.Error(err)
	}
	p := c.open(t, there.conf, there.metadata)
	all, err := p.List(t.Context(), block.Query{Namespace: "test", Names: []string{"copy"}})
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if d := c.get(t, all[0].ID); last(d.Zone) != zoneB || last(d.Type) != "pd-ssd" || d.DiskEncryptionKey == nil || !strings.HasPrefix(d.DiskEncryptionKey.KmsKeyName, key) {
		t.Errorf("%s %s %+v", d.Zone, d.Type, d.DiskEncryptionKey)
	}
}
