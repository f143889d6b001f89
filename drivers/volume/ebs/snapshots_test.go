package ebs

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

func snapshotTags(uuid string) block.Tags {
	return block.Tags{block.TagUUID: uuid, block.TagNamespace: "test", block.TagName: "data", "snapshot": "s.1"}
}

// TestSnapshots: one is made once for its UUID, though EC2 has no token for it; one that was made
// twice is listed once, and both go.
func TestSnapshots(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	d := c.make(t, p, spec("data"))
	var first block.Snapshot
	for n := range 2 {
		s, err := p.CreateSnapshot(t.Context(), d, snapshotTags("u1"))
		if err != nil || n > 0 && s.ID != first.ID {
			t.Fatalf("%+v, %v", s, err)
		}
		first = s
	}
	if diff := cmp.Diff(snapshotTags("u1"), first.Tags); diff != "" || first.Size != gib {
		t.Errorf("%+v %s", first, diff)
	}
	if _, err := p.snap(t.Context(), d, snapshotTags("u1")); err != nil { // whose answer was lost
		t.Fatal(err)
	}
	if _, err := p.CreateSnapshot(t.Context(), d, snapshotTags("u2")); err != nil {
		t.Fatal(err)
	}
	for _, q := range []block.Query{{}, {Names: []string{"data"}}} {
		q.Namespace = "test"
		list, err := p.Snapshots(t.Context(), q)
		if err != nil || len(list) != 2 || list[0].Facts[factTwins] == "" || list[0].State != block.Ready {
			t.Fatalf("%+v, %v", list, err)
		}
	}
	list, err := p.Snapshots(t.Context(), block.Query{Namespace: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.DeleteSnapshot(t.Context(), list[0]); err != nil {
			t.Fatal(err)
		}
	}
	if list, err = p.Snapshots(t.Context(), block.Query{Namespace: "test"}); err != nil || len(list) != 1 || list[0].Tags[block.TagUUID] != "u2" {
		t.Errorf("%+v, %v", list, err)
	}
	s := spec("new")
	s.Snapshot, s.Size = &list[0], 2*gib
	if d := c.make(t, p, s); d.Size != 2*gib {
		t.Errorf("%+v", d)
	}
	s = spec("none")
	s.Snapshot = &block.Snapshot{ID: "snap-0123456789abcdef0"}
	_, err = p.Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrInvalid, s.Snapshot.ID, "region "+east)
}

// TestSnapshotRate: where EBS wants to be asked again later, it is; and a caller without time is told.
func TestSnapshotRate(t *testing.T) {
	conf := still()
	conf.Limits.SnapshotEvery = 4 * time.Second
	c := newCloud(t, conf)
	p := c.open(t, c.pool(), "")
	d := c.make(t, p, spec("data"))
	for _, id := range []string{"u1", "u2"} {
		if _, err := p.CreateSnapshot(t.Context(), d, snapshotTags(id)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := p.CreateSnapshot(ctx, d, snapshotTags("u3"))
	wantErr(t, err, errdefs.ErrUnavailable, "15 seconds")
}

// TestResize: asked again it is done; within the time in which EBS changes nothing it is told from
// when on it does.
func TestResize(t *testing.T) {
	conf := still()
	conf.Limits.ModifyEvery = 6 * time.Hour
	conf.Delays.Modify = 100 * time.Millisecond
	conf.Delays.Optimize = 100 * time.Millisecond
	c := newCloud(t, conf)
	p := c.open(t, c.pool(), "")
	d := c.make(t, p, spec("data"))
	for range 2 { // the second time it is under way
		if err := p.Resize(t.Context(), d, 2*gib); err != nil {
			t.Fatal(err)
		}
	}
	err := p.Resize(t.Context(), d, 3*gib)
	wantErr(t, err, errdefs.ErrInUse, d.ID, "6 hours", "try again after ")
	_, after, _ := strings.Cut(strings.Join(append(errdefs.Hints(err), err.Error()), " "), "try again after ")
	when, perr := time.Parse(time.RFC3339, strings.Trim(strings.Fields(after)[0], ".,;)"))
	if in := time.Until(when) - coolDown; perr != nil || in.Abs() > time.Minute {
		t.Errorf("%v: it says when to try again, and not %s from now: %v", err, coolDown, perr)
	}
	for end := time.Now().Add(10 * time.Second); c.look(t, p, d.ID).Size != 2*gib; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not grow")
		}
	}
	time.Sleep(200 * time.Millisecond)
	if err := p.Resize(t.Context(), d, 2*gib); err != nil { // whose answer was lost
		t.Errorf("again, when it is done: %v", err)
	}
	wantErr(t, p.Resize(t.Context(), d, 3*gib), errdefs.ErrInUse, "completed", "try again after")
	wantErr(t, p.Resize(t.Context(), block.Disk{ID: "vol-0123456789abcdef0"}, 3*gib), errdefs.ErrNotFound)
}

// TestAnotherZone: a clone brings the data to another zone, and is used there.
func TestAnotherZone(t *testing.T) {
	c := newCloud(t, quick())
	here, there := c.daemon(t, ec2.InstanceSpec{Zone: east + "a"}), c.daemon(t, ec2.InstanceSpec{Zone: east + "b"})
	one, two := here.driver(t), there.driver(t)
	mount := func(d volume.Driver, name string) (string, error) {
		at := t.TempDir()
		_, err := d.Mount(t.Context(), name, at)
		if err == nil {
			t.Cleanup(func() {
				if err := d.Unmount(context.WithoutCancel(t.Context()), name, at); err != nil {
					t.Error(err)
				}
			})
		}
		return at, err
	}
	if err := one.Create(t.Context(), "db", nil); err != nil {
		t.Fatal(err)
	}
	at, err := mount(one, "db")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at+"/f", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := one.(volume.Cloner).Clone(t.Context(), "db-b", "db", "", map[string]string{"availabilityZone": east + "b"}); err != nil {
		t.Fatal(err)
	}
	_, err = mount(two, "db")
	if err == nil || !errors.Is(err, errdefs.ErrInUse) && !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("mounted in the wrong zone: %v", err)
	}
	time.Sleep(100 * time.Millisecond) // until lists have it
	at, err = mount(two, "db-b")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(at + "/f"); err != nil || string(text) != "text" {
		t.Errorf("read %q, %v", text, err)
	}
}

// TestCopiesAreAlike: what is made of a volume has what was chosen for it, of each type.
func TestCopiesAreAlike(t *testing.T) {
	c := newCloud(t, quick())
	d := c.daemon(t, ec2.InstanceSpec{})
	drv, p := d.driver(t), c.open(t, d.conf, d.metadata)
	for _, opts := range []map[string]string{
		{"type": "io2", "size": "4", "iops": "400"},
		{"type": "gp3", "size": "8", "iops": "4000", "throughput": "300"},
		{"type": "gp2", "size": "1"},
		{"type": "standard", "size": "1"},
	} {
		t.Run(opts["type"], func(t *testing.T) {
			name, at := opts["type"], t.TempDir()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(drv.Create(t.Context(), name, opts))
			_, err := drv.Mount(t.Context(), name, at)
			must(err)
			must(drv.(volume.Snapshotter).CreateSnapshot(t.Context(), name, "s1", nil))
			must(drv.Unmount(t.Context(), name, at))
			must(drv.(volume.Cloner).Clone(t.Context(), name+"-clone", name, "", map[string]string{}))
			dir, err := drv.(volume.SnapshotOpener).OpenSnapshot(t.Context(), name, "s1", at)
			must(err)
			must(drv.(volume.SnapshotOpener).CloseSnapshot(t.Context(), name, "s1", dir))
			was := c.find(t, p, name)
			must(drv.(volume.Rollbacker).Rollback(t.Context(), name, "s1"))
			for _, now := range []block.Disk{c.find(t, p, name), c.find(t, p, name+"-clone")} {
				if now.ID == was.ID || now.Type != was.Type || now.Size != was.Size || now.IOPS != was.IOPS || now.Throughput != was.Throughput {
					t.Errorf("a copy is %+v, of %+v", now, was)
				}
			}
		})
	}
}

// find returns the disk of a volume, when it is the only one.
func (c *cloud) find(t *testing.T, p *provider, name string) block.Disk {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		list, err := p.List(t.Context(), block.Query{Namespace: "test", Names: []string{name}})
		if err == nil && len(list) == 1 {
			return list[0]
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %+v, %v", name, list, err)
		}
	}
}

// TestCopySnapshot: one is copied to another region once, with its tags, and encrypted as the pool
// there is.
func TestCopySnapshot(t *testing.T) {
	conf := still()
	conf.KmsKeys = []string{"alias/west"}
	c := newCloud(t, conf)
	p := c.open(t, c.pool(), "")
	s, err := p.CreateSnapshot(t.Context(), c.make(t, p, spec("data")), snapshotTags("u1"))
	if err != nil {
		t.Fatal(err)
	}
	pool := c.pool()
	pool.Region, pool.KMSKey = west, "alias/west"
	there := c.open(t, pool, "")
	var first block.Snapshot
	for n := range 2 {
		got, err := there.CopySnapshot(t.Context(), s, p.Traits(), snapshotTags("u2"))
		if err != nil || n > 0 && got.ID != first.ID || got.Size != gib {
			t.Fatalf("%+v, %v", got, err)
		}
		first = got
	}
	list, err := there.Snapshots(t.Context(), all)
	if err != nil || len(list) != 1 || list[0].ID != first.ID || list[0].State != block.Ready {
		t.Fatalf("%+v, %v", list, err)
	}
	if diff := cmp.Diff(snapshotTags("u2"), list[0].Tags); diff != "" {
		t.Error(diff)
	}
	made := spec("copy")
	made.Zone, made.Snapshot = west+"a", &list[0]
	if d := c.make(t, there, made); !d.Encrypted || d.Zone != west+"a" {
		t.Errorf("%+v", d)
	}
	s.ID = "snap-0123456789abcdef0"
	_, err = there.CopySnapshot(t.Context(), s, p.Traits(), snapshotTags("u3"))
	wantErr(t, err, errdefs.ErrUnsupported, s.ID, "share snapshots")
	_, err = there.CopySnapshot(t.Context(), s, block.Traits{}, snapshotTags("u3"))
	wantErr(t, err, errdefs.ErrUnsupported, "region")
}
