package rbd

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/test/cloud/ceph"
)

const uuidA, uuidB = "11111111-1111-8111-8111-111111111111", "22222222-2222-8222-8222-222222222222"

func (c *cloud) provider(t testing.TB, change func(*config)) *provider {
	t.Helper()
	conf := c.config("one")
	if change != nil {
		change(&conf)
	}
	dir := t.TempDir()
	t.Cleanup(func() { c.sweep(t, dir) })
	return start(t, conf, dir)
}

// mapping makes a pool of a host that goes one way.
func (c *cloud) mapping(t *testing.T, way, host string) *provider {
	t.Helper()
	return c.provider(t, func(c *config) { c.Map, c.Host = way, host })
}

func start(t testing.TB, conf config, dir string) *provider {
	t.Helper()
	p, err := newProvider(t.Context(), conf, catalog.Env{PoolName: "pool", RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func spec(uuid, name string) block.Spec {
	return block.Spec{UUID: uuid, Size: 16 << 20, Tags: block.Tags{block.TagUUID: uuid, block.TagNamespace: "test", block.TagName: name, "fs": "ext4"}}
}

func (p *provider) mustCreate(t *testing.T, s block.Spec) block.Disk {
	t.Helper()
	d, err := p.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (p *provider) only(t *testing.T, q block.Query) block.Disk {
	t.Helper()
	q.Namespace = "test"
	all, err := p.List(t.Context(), q)
	if err != nil || len(all) != 1 {
		t.Fatalf("listed %+v, %v; want one", all, err)
	}
	return all[0]
}

// TestClonesAreNotBelieved: a clone that somebody made has all the tags of its source, and is
// nobody's volume.
func TestClonesAreNotBelieved(t *testing.T) {
	c := newCloud(t, ceph.Shared(t))
	p := c.provider(t, nil)
	d := p.mustCreate(t, spec(uuidA, "data"))
	image := d.Facts["image"]
	c.Must(t, "rbd", "snap", "create", p.spec(image)+"@s", "--no-progress")
	fake := strings.Replace(image, uuidA, uuidB, 1)
	c.Must(t, "rbd", "clone", "--rbd-default-clone-format", "2", p.spec(image)+"@s", p.spec(fake))
	for _, q := range []block.Query{{}, {Names: []string{"data"}}} {
		if got := p.only(t, q); got.ID != d.ID {
			t.Errorf("listed %+v", got)
		}
	}
	// A try of Create that was cut off looks like this, and is finished by the next.
	again := p.mustCreate(t, spec(uuidB, "data"))
	if again.Facts["image"] != fake || again.Tags[block.TagUUID] != uuidB {
		t.Errorf("the one that was cut off: %+v", again)
	}
	if err := p.Delete(t.Context(), d); !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), `"s"`) {
		t.Errorf("delete with a snapshot of somebody: %v", err)
	}
}

// TestTagsAndNames: tags change one by one, and an image goes by its volume's name.
func TestTagsAndNames(t *testing.T) {
	c := newCloud(t, ceph.Shared(t))
	p, other := c.provider(t, nil), c.provider(t, nil)
	d := p.mustCreate(t, spec(uuidA, "data"))
	other.only(t, block.Query{IDs: []string{d.ID}})
	if err := p.SetTags(t.Context(), d, block.Tags{block.TagName: "new \"näme\"", "fs": "", "x": "=-"}); err != nil {
		t.Fatal(err)
	}
	for _, q := range []block.Query{{}, {Names: []string{"new \"näme\""}}, {IDs: []string{d.ID}}} {
		got := other.only(t, q)
		if _, fs := got.Tags["fs"]; fs || got.Tags["x"] != "=-" || got.Tags[block.TagName] != "new \"näme\"" || got.ID != d.ID {
			t.Errorf("%+v: tags %q", q, got.Tags)
		}
	}
	if all, err := p.List(t.Context(), block.Query{Namespace: "test", Names: []string{"data"}}); err != nil || len(all) > 0 {
		t.Errorf("by its old name: %v, %v", all, err)
	}
	if all, err := p.List(t.Context(), block.Query{Namespace: "other"}); err != nil || len(all) > 0 {
		t.Errorf("in another namespace: %v, %v", all, err)
	}
	if err := other.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(t.Context(), d); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestParentIsDeleted: what clones depend on lives on in the trash, and goes with the last of them.
func TestParentIsDeleted(t *testing.T) {
	c := newCloud(t, ceph.Shared(t))
	p := c.provider(t, nil)
	d := p.mustCreate(t, spec(uuidA, "data"))
	sn, err := p.CreateSnapshot(t.Context(), d, block.Tags{block.TagUUID: "s", block.TagNamespace: "test", block.TagName: "data"})
	if err != nil {
		t.Fatal(err)
	}
	s := spec(uuidB, "copy")
	s.Snapshot, s.Size = &sn, 0
	s.Extra = map[string]string{"object_size": "1m", "features": "layering,deep-flatten"}
	clone := p.mustCreate(t, s)
	i, err := p.info(t.Context(), clone.Facts["image"])
	if err != nil || clone.Size != d.Size || i.Parent == nil || !strings.HasPrefix(strings.Join(i.Features, ","), "layering,deep-flatten") {
		t.Fatalf("clone %+v, %+v, %v", clone, i, err)
	}
	if err := p.DeleteSnapshot(t.Context(), sn); err != nil {
		t.Fatal(err)
	}
	if all, err := p.Snapshots(t.Context(), block.Query{Namespace: "test"}); err != nil || len(all) > 0 {
		t.Errorf("snapshots: %v, %v", all, err)
	}
	if err := p.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := p.only(t, block.Query{}); got.ID != clone.ID {
		t.Errorf("listed %+v", got)
	}
	if err := p.Delete(t.Context(), clone); err != nil {
		t.Fatal(err)
	}
	if left := c.Must(t, "rbd", "trash", "ls", c.pool) + c.Must(t, "rbd", "ls", c.pool); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestFlatten: a clone is being made until it is independent.
func TestFlatten(t *testing.T) {
	c := newCloud(t, ceph.Shared(t))
	p := c.provider(t, func(c *config) { c.Flatten = true })
	d := p.mustCreate(t, spec(uuidA, "data"))
	c.Must(t, "rbd", "snap", "create", p.spec(d.Facts["image"])+"@by-hand", "--no-progress")
	s := spec(uuidB, "copy")
	s.Snapshot = &block.Snapshot{ID: d.Facts["image"] + "@by-hand"}
	clone := p.mustCreate(t, s)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		now := p.only(t, block.Query{IDs: []string{clone.ID}})
		if now.State == block.Ready {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not flattened")
		}
	}
	if i, err := p.info(t.Context(), clone.Facts["image"]); err != nil || i.Parent != nil {
		t.Errorf("parent %+v, %v", i.Parent, err)
	}
	s.UUID, s.Snapshot = uuidA, &block.Snapshot{ID: "no-image@s"}
	s.Tags = spec("33333333-3333-8333-8333-333333333333", "x").Tags
	if _, err := p.Create(t.Context(), s); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("of no snapshot: %v", err)
	}
}

// TestReboot: a host gets its images back after it was started again, as soon as the cluster does
// not see the client from before any more, and that client is fenced.
func TestReboot(t *testing.T) {
	c := newCloud(t, ceph.Shared(t))
	before := c.provider(t, nil)
	d := before.mustCreate(t, spec(uuidA, "data"))
	if err := before.Attach(t.Context(), d, block.Host{ID: "one"}); err != nil {
		t.Fatal(err)
	}
	locks, err := before.locks(t.Context(), d.Facts["image"])
	if err != nil || len(locks) != 1 {
		t.Fatalf("%v, %v", locks, err)
	}
	held, ok := locks[0].claim()
	if !ok || len(held.Clients) != 1 {
		t.Fatalf("lock %q", locks[0].ID)
	}
	same := c.provider(t, nil)
	if err := same.Attach(t.Context(), d, block.Host{ID: "one"}); !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon of one host: %v", err)
	}
	if got := before.only(t, block.Query{Names: []string{"data"}}); len(got.Holders) != 1 || got.Holders[0].Host != "one" || time.Since(got.Holders[0].Since) > time.Hour {
		t.Errorf("holders %+v", got.Holders)
	}
	a := before.attachment(d.ID)
	if err := kill(t.Context(), a.PID, a.Dir); err != nil {
		t.Fatal(err)
	}
	after := c.provider(t, nil)
	after.boot = "another"
	if err := after.Attach(t.Context(), d, block.Host{ID: "one"}); !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), "still open") {
		t.Errorf("at once: %v", err)
	}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		err := after.Attach(t.Context(), d, block.Host{ID: "one"})
		if err == nil {
			break
		}
		if !errors.Is(err, errdefs.ErrInUse) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if list := c.Must(t, "ceph", "osd", "blocklist", "ls"); !strings.Contains(list, held.Clients[0]) {
		t.Errorf("the client %s is not on the blocklist: %s", held.Clients[0], list)
	}
	if err := after.Detach(t.Context(), d, "one", false); err != nil {
		t.Fatal(err)
	}
	if got := after.only(t, block.Query{Names: []string{"data"}}); len(got.Holders) > 0 {
		t.Errorf("holders %+v", got.Holders)
	}
}

// TestRefused: who may not, or asks for what is not there, is told so in one line.
func TestRefused(t *testing.T) {
	c := newCloud(t, ceph.Shared(t))
	for _, tt := range []struct {
		what   string
		change func(*config)
		class  error
		word   string
	}{
		{"no such user", func(c *config) { c.User = "nobody" }, errdefs.ErrDenied, ""},
		{"no such pool", func(c *config) { c.Pool = "nothing" }, errdefs.ErrNotFound, "nothing"},
	} {
		p := c.provider(t, tt.change)
		_, err := p.List(t.Context(), block.Query{Namespace: "test"})
		if !errors.Is(err, tt.class) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
}

// TestOutage: a cluster that does not answer is an error in seconds, and who asks again at once
// is told so at once. What is remembered is told meanwhile, and a mount lives on.
func TestOutage(t *testing.T) {
	cluster := ceph.NewDurable(t)
	c := newCloud(t, cluster)
	o := opened{c, t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil))}
	t.Cleanup(func() { c.sweep(t, filepath.Join(o.dir, "run")) })
	d := o.open(t).(*pool)
	target := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(t.Context(), "data", nil); err != nil {
		t.Fatal(err)
	}
	at, err := d.Mount(t.Context(), "data", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	write(t, filepath.Join(at, "f"), "before")

	space, err := d.Space(t.Context())
	if err != nil || space.Free <= 0 || space.Total < space.Free {
		t.Errorf("space %+v, %v", space, err)
	}
	if a := d.Advice(); !strings.Contains(a.Text, "rbd-fuse") {
		t.Errorf("advice %+v", a)
	}

	restart := cluster.Kill()
	d.p.c.Timeout = 3 * time.Second
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	err = d.Create(ctx, "other", nil)
	cancel()
	if took := time.Since(began); !errors.Is(err, errdefs.ErrUnavailable) || took > 20*time.Second || !strings.Contains(err.Error(), "does not answer within 3s") {
		t.Errorf("create: after %s: %v", took, err)
	}
	wrote := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(filepath.Join(at, "g"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString("during")
		}
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		wrote <- err
	}()
	time.Sleep(2 * lookEvery) // the watch looks in vain, and takes nothing away
	began = time.Now()
	info, err := d.Inspect(t.Context(), "data")
	if err != nil || time.Since(began) > time.Second || info.Status["state"] != "attached here" {
		t.Errorf("inspect after %s: %+v, %v", time.Since(began), info, err)
	}
	n := 0
	for _, err := range d.Volumes(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d volumes", n)
	}
	d.p.c.Timeout = 30 * time.Second
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-wrote:
		if err != nil {
			t.Errorf("what was written meanwhile: %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("what was written meanwhile is not done")
	}
	if b, err := os.ReadFile(filepath.Join(at, "f")); err != nil || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
	if err := d.Unmount(t.Context(), "data", target); err != nil {
		t.Fatal(err)
	}
	var used volume.Usage
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if used, err = d.Usage(t.Context(), "data"); err == nil && used.Used < used.Limit {
			break
		}
	}
	if err != nil || used.Used == 0 || used.Used >= used.Limit {
		t.Errorf("usage %+v, %v", used, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
