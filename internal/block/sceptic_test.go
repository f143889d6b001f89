package block_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// ill is a cloud that is not well.
type ill struct {
	block.Provider
	lists func(q block.Query, all []block.Disk) ([]block.Disk, error)
	self  func() block.Host
}

func (p ill) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	all, err := p.Provider.List(ctx, q)
	if err == nil && p.lists != nil {
		return p.lists(q, all)
	}
	return all, err
}

func (p ill) Self(ctx context.Context) (block.Host, error) {
	if p.self != nil {
		return p.self(), nil
	}
	return p.Provider.Self(ctx)
}

// late is one that hears of others' disks when it has made its own.
type late struct {
	ill
	made func()
}

func (p late) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	d, err := p.ill.Create(ctx, s)
	p.made()
	return d, err
}

func openPool(t *testing.T, h *blocktest.Host, p block.Provider, dir, name string) (volume.Driver, error) {
	t.Helper()
	c, err := catalog.DecodeTable[block.Config](map[string]any{"size": "64m", "cloud_refresh": "1m", "wait": "1s"})
	if err != nil {
		t.Fatal(err)
	}
	c.Dev, c.Sys = h.Machine.Dev(), h.Machine.Sys()
	return block.Open(t.Context(), p, c, catalog.Env{PoolName: name, StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")})
}

func mustOpen(t *testing.T, h *blocktest.Host, p block.Provider) volume.Driver {
	t.Helper()
	d, err := openPool(t, h, p, t.TempDir(), "pool")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func shut(t *testing.T, d volume.Driver) {
	t.Helper()
	if err := d.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
}

func count(t *testing.T, d volume.Driver) (n int) {
	t.Helper()
	for _, err := range d.Volumes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestEmptyAnswers: a cloud that answers with nothing for a while costs no volume, and no second disk
// of a name; one that goes on saying so is believed.
func TestEmptyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := blocktest.NewReference(t)
		h := cloud.Host(t)
		var all, names atomic.Bool
		d := mustOpen(t, h, ill{Provider: h.Provider(t), lists: func(q block.Query, list []block.Disk) ([]block.Disk, error) {
			if q.All() && all.Load() || len(q.Names) > 0 && names.Load() {
				return nil, nil
			}
			return list, nil
		}})
		defer shut(t, d)
		for i := range 3 {
			if err := d.Create(t.Context(), fmt.Sprint("v", i), map[string]string{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		all.Store(true)
		time.Sleep(90 * time.Second)
		if n := count(t, d); n != 3 {
			t.Errorf("%d volumes after an empty list", n)
		}
		if err := d.(volume.Pinger).Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "3 of the 3 volumes") {
			t.Errorf("ping: %v", err)
		}
		all.Store(false)
		time.Sleep(90 * time.Second)
		if err := d.(volume.Pinger).Ping(t.Context()); err != nil {
			t.Errorf("ping: %v", err)
		}
		names.Store(true)
		if err := d.Create(t.Context(), "v0", map[string]string{}); err != nil {
			t.Error(err)
		}
		names.Store(false)
		if list, err := h.Provider(t).List(t.Context(), block.Query{Namespace: "remora"}); err != nil || len(list) != 3 {
			t.Errorf("%d disks, %v", len(list), err)
		}
		all.Store(true)
		time.Sleep(10 * time.Minute)
		if n := count(t, d); n != 0 {
			t.Errorf("%d volumes when there are none any more", n)
		}
	})
}

// TestSecondDiskOfAName: two hosts that make a volume at the same time, and hear of each other late, leave one
// disk, whichever of the two it is. One that has data is never deleted for that.
func TestSecondDiskOfAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := blocktest.NewReference(t)
		one, two := cloud.Host(t), cloud.Host(t)
		var hidden atomic.Value // the name of which the second host hears only when it has made a disk
		hidden.Store("")
		seconds := func(q block.Query, all []block.Disk) ([]block.Disk, error) {
			for i := range all { // as a cloud that tells no more than the hour
				all[i].Created = all[i].Created.Truncate(time.Hour)
			}
			return all, nil
		}
		a := mustOpen(t, one, ill{Provider: one.Provider(t), lists: seconds})
		defer shut(t, a)
		b := mustOpen(t, two, late{ill{Provider: two.Provider(t), lists: func(q block.Query, all []block.Disk) ([]block.Disk, error) {
			all = slices.DeleteFunc(all, func(d block.Disk) bool { return d.Tags[block.TagName] == hidden.Load() })
			return seconds(q, all)
		}}, func() { hidden.Store("") }})
		defer shut(t, b)
		p := one.Provider(t)
		left := func(name string) []block.Disk {
			all, err := p.List(t.Context(), block.Query{Namespace: "remora", Names: []string{name}})
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		won := map[string]int{}
		for i := range 16 {
			name := fmt.Sprint("race", i)
			hidden.Store(name)
			if err := a.Create(t.Context(), name, map[string]string{}); err != nil {
				t.Fatal(err)
			}
			first := left(name)[0]
			used := i >= 8
			if used {
				if err := p.SetTags(t.Context(), first, block.Tags{"formatted": "2026-01-01T00:00:00Z"}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute) // another token
			if err := b.Create(t.Context(), name, map[string]string{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			switch now := left(name); {
			case len(now) != 1:
				t.Errorf("%s: %d disks", name, len(now))
			case now[0].ID == first.ID:
				won["first"]++
			case used:
				t.Errorf("%s: a disk with data was deleted", name)
			default:
				won["second"]++
			}
		}
		if won["first"] < 8 || won["second"] == 0 {
			t.Errorf("the volumes are %v", won)
		}
	})
}

// TestOneNamespaceTwice: two pools of one daemon do not share volumes, which each would detach of the
// other.
func TestOneNamespaceTwice(t *testing.T) {
	cloud := blocktest.NewReference(t)
	h, dir := cloud.Host(t), t.TempDir()
	one, err := openPool(t, h, h.Provider(t), dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	_, err = openPool(t, h, h.Provider(t), dir, "two")
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), `the pool "one"`) {
		t.Errorf("the second pool: %v", err)
	}
	again, err := openPool(t, h, h.Provider(t), dir, "one") // a reload
	if err != nil {
		t.Fatal(err)
	}
	shut(t, one)
	if _, err := openPool(t, h, h.Provider(t), dir, "two"); err == nil {
		t.Error("the end of the one that was reloaded gave its volumes away")
	}
	shut(t, again)
	two, err := openPool(t, h, h.Provider(t), dir, "two")
	if err != nil {
		t.Fatal(err)
	}
	shut(t, two)
}

// TestCloseWhileTheCloudHangs: a provider that does not come back does not keep the daemon from ending.
func TestCloseWhileTheCloudHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := blocktest.NewReference(t)
		h := cloud.Host(t)
		hang := make(chan struct{})
		d := mustOpen(t, h, ill{Provider: h.Provider(t), lists: func(block.Query, []block.Disk) ([]block.Disk, error) {
			<-hang // whatever the context says
			return nil, nil
		}})
		synctest.Wait()
		began := time.Now()
		err := d.(io.Closer).Close()
		if err == nil || time.Since(began) > 15*time.Second {
			t.Errorf("close took %s, %v", time.Since(began), err)
		}
		close(hang)
		synctest.Wait()
	})
}

// TestRefusedMount: a mount that was refused since another host has the disk asks for no detach later.
// And a host that is another one than it was finds that out.
func TestRefusedMount(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	synctest.Test(t, func(t *testing.T) {
		cloud := blocktest.NewReference(t)
		one, two := cloud.Host(t), cloud.Host(t)
		var self atomic.Value
		self.Store("i-of-yesterday")
		d := mustOpen(t, two, ill{Provider: two.Provider(t), self: func() block.Host { return block.Host{ID: self.Load().(string)} }})
		defer shut(t, d)
		if err := d.Create(t.Context(), "data", map[string]string{}); err != nil {
			t.Fatal(err)
		}
		p := one.Provider(t)
		disks, err := p.List(t.Context(), block.Query{Namespace: "remora"})
		if err != nil || len(disks) != 1 {
			t.Fatal(disks, err)
		}
		if err := p.Attach(t.Context(), disks[0], block.Host{ID: one.ID}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Mount(t.Context(), "data", t.TempDir()); !errors.Is(err, errdefs.ErrInUse) {
			t.Fatalf("mount: %v", err)
		}
		time.Sleep(10 * time.Minute)
		for _, c := range cloud.Client().Counts() {
			if c.Op == "Detach" {
				t.Errorf("a mount that was refused asked for %d detaches", c.N)
			}
		}
		if err := p.Detach(t.Context(), disks[0], one.ID, false); err != nil {
			t.Fatal(err)
		}
		attach := d.(volume.Attacher).Attach
		if err := attach(t.Context(), "data", false); !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrInvalid) {
			t.Fatalf("attach to a host that is not there: %v", err)
		}
		self.Store(two.ID)
		if err := attach(t.Context(), "data", false); err != nil {
			t.Errorf("attach when the host knows who it is: %v", err)
		}
		time.Sleep(20 * time.Minute)
	})
}

// TestDetachedMeanwhile: a mount finds a device that a detach of the daemon before is about to take away, of
// which the cloud does not tell. Whenever it goes, the disk is brought again.
func TestDetachedMeanwhile(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	cloud := blocktest.NewReference(t)
	h := cloud.Host(t)
	d, err := openPool(t, h, ill{Provider: h.Provider(t), lists: func(_ block.Query, all []block.Disk) ([]block.Disk, error) {
		for i := range all {
			for j := range all[i].Holders {
				all[i].Holders[j].State = block.Attached
			}
		}
		return all, nil
	}}, t.TempDir(), "pool")
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, d)
	if err := d.Create(t.Context(), "data", map[string]string{}); err != nil {
		t.Fatal(err)
	}
	target, p := t.TempDir(), h.Provider(t)
	disks, err := p.List(t.Context(), block.Query{Namespace: "remora"})
	if err != nil || len(disks) != 1 {
		t.Fatal(disks, err)
	}
	for after := time.Duration(0); after < 100*time.Millisecond; after += 4 * time.Millisecond {
		if _, err := d.Mount(t.Context(), "data", target); err != nil {
			t.Fatalf("mount: %v", err)
		}
		if err := d.Unmount(t.Context(), "data", target); err != nil {
			t.Fatal(err)
		}
		gone := make(chan error, 1)
		go func() {
			time.Sleep(after)
			err := p.Detach(t.Context(), disks[0], h.ID, false)
			for errors.Is(err, errdefs.ErrInUse) { // mounted, or looked at
				time.Sleep(time.Millisecond)
				err = p.Detach(t.Context(), disks[0], h.ID, false)
			}
			gone <- err
		}()
		_, err := d.Mount(t.Context(), "data", target)
		if err != nil {
			t.Errorf("with a detach after %s: %v", after, err)
		}
		if err := d.Unmount(t.Context(), "data", target); err != nil {
			t.Error(err)
		}
		if err := <-gone; err != nil {
			t.Error(err)
		}
	}
}
