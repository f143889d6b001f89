package dobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/test/cloud/do"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

func (c *cloud) holders(t testing.TB, p *provider, d block.Disk) (ids []string) {
	t.Helper()
	list, err := p.List(t.Context(), block.Query{Namespace: "test", IDs: []string{d.ID}})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, h := range list[0].Holders {
		ids = append(ids, h.Host)
	}
	return ids
}

func (c *cloud) until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

// TestDropletDoesOneThing: a droplet refuses to attach a disk while it attaches another. Those that
// come together get their turns.
func TestDropletDoesOneThing(t *testing.T) {
	c := newCloud(t, do.Config{Hourly: -1, Burst: -1, Attach: 100 * time.Millisecond, Detach: 100 * time.Millisecond})
	id, m, metadata := c.droplet(t, nyc)
	p := c.open(t, c.pool(), metadata)
	self := block.Host{ID: strconv.Itoa(id), Zone: nyc}
	var disks []block.Disk
	for i := range 5 {
		disks = append(disks, c.make(t, p, spec(fmt.Sprint("v", i))))
	}
	together := func(do func(d block.Disk) error) {
		t.Helper()
		var all sync.WaitGroup
		for _, d := range disks {
			all.Go(func() {
				if err := do(d); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	together(func(d block.Disk) error { return p.Attach(t.Context(), d, self) })
	c.until(t, "all are there", func() bool { return len(m.Names()) == len(disks) })
	together(func(d block.Disk) error { return p.Detach(t.Context(), d, self.ID, false) })
	c.until(t, "all are off", func() bool { return len(m.Names()) == 0 })
	if n := c.Calls.Counts()["volumes.attach"].Calls; n > 4*len(disks) {
		t.Errorf("%d requests for %d disks", n, len(disks))
	}
}

// TestBusyDroplet: whose turn does not come in time is told why.
func TestBusyDroplet(t *testing.T) {
	c := newCloud(t, do.Config{Hourly: -1, Burst: -1, Attach: time.Hour, Clock: fake.NewManual(time.Now())})
	id, _, metadata := c.droplet(t, nyc)
	p := c.open(t, c.pool(), metadata)
	self := block.Host{ID: strconv.Itoa(id), Zone: nyc}
	one, two := c.make(t, p, spec("one")), c.make(t, p, spec("two"))
	if err := p.Attach(t.Context(), one, self); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if err := p.Attach(ctx, two, self); !errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("error is %v", err)
			}
		})
	}
	all.Wait()
	// The disk that is on its way there is neither off nor going.
	err := p.Detach(t.Context(), one, self.ID, false)
	wantErr(t, err, errdefs.ErrUnavailable, "attach")
}

// TestAttachTwice: a second request is a success, that of another droplet is not.
func TestAttachTwice(t *testing.T) {
	c := newCloud(t, still())
	id, m, metadata := c.droplet(t, nyc)
	other, _, elsewhere := c.droplet(t, nyc)
	p, q := c.open(t, c.pool(), metadata), c.open(t, c.pool(), elsewhere)
	self, err := p.Self(t.Context())
	if err != nil || self != (block.Host{ID: strconv.Itoa(id), Zone: nyc}) {
		t.Fatalf("this is %+v, %v", self, err)
	}
	d := c.make(t, p, spec("data"))
	for range 2 {
		if err := p.Attach(t.Context(), d, self); err != nil {
			t.Fatal(err)
		}
		c.until(t, "it is there", func() bool { return len(c.holders(t, p, d)) == 1 && len(m.Names()) == 1 })
	}
	wantErr(t, q.Attach(t.Context(), d, block.Host{ID: strconv.Itoa(other), Zone: nyc}), errdefs.ErrInUse)
	wantErr(t, q.Delete(t.Context(), d), errdefs.ErrInUse)
	if err := p.Detach(t.Context(), d, strconv.Itoa(other), false); err != nil {
		t.Errorf("off a droplet that never had it: %v", err)
	}
	if got := c.holders(t, p, d); len(got) != 1 || got[0] != self.ID {
		t.Errorf("it is with %q", got)
	}
	for range 2 {
		if err := p.Detach(t.Context(), d, self.ID, false); err != nil {
			t.Fatal(err)
		}
		c.until(t, "it is off", func() bool { return len(c.holders(t, p, d)) == 0 })
	}
	if err := p.Detach(t.Context(), d, "99", true); err != nil {
		t.Errorf("off a droplet that is gone: %v", err)
	}
	for _, id := range []string{"", "x", "-1"} {
		wantErr(t, p.Detach(t.Context(), d, id, false), errdefs.ErrInvalid)
	}
}

// TestOnItsWayOff: a daemon that starts while a disk is detached sees that, though lists say that it is
// attached.
func TestOnItsWayOff(t *testing.T) {
	clock := fake.NewManual(time.Now())
	c := newCloud(t, do.Config{Hourly: -1, Burst: -1, Attach: time.Minute, Detach: time.Minute, Clock: clock})
	id, _, metadata := c.droplet(t, nyc)
	self := block.Host{ID: strconv.Itoa(id), Zone: nyc}
	p := c.open(t, c.pool(), metadata)
	d := c.make(t, p, spec("data"))
	want := func(p *provider, want block.Holding, most int) {
		t.Helper()
		if _, err := p.Self(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Calls.Reset()
		list, err := p.List(t.Context(), block.Query{Namespace: "test", Names: []string{"data"}})
		if err != nil || len(list) != 1 || len(list[0].Holders) != 1 || list[0].Holders[0].State != want {
			t.Errorf("it is with %+v, %v; want %s", list, err, want)
		}
		if n := c.Calls.Total(); n > most {
			t.Errorf("%d requests, want %d", n, most)
		}
	}
	if err := p.Attach(t.Context(), d, self); err != nil {
		t.Fatal(err)
	}
	clock.Advance(2 * time.Minute)
	want(p, block.Attached, 1)
	again := c.open(t, c.pool(), metadata)
	want(again, block.Attached, 2)
	want(again, block.Attached, 1)
	if err := p.Detach(t.Context(), d, self.ID, false); err != nil {
		t.Fatal(err)
	}
	want(p, block.Detaching, 1)
	want(c.open(t, c.pool(), metadata), block.Detaching, 2)
	clock.Advance(2 * time.Minute)
	if got := c.holders(t, p, d); len(got) != 0 {
		t.Errorf("it is with %q", got)
	}
}

// TestMatch: a device is the disk that its link names, and no other, whatever its serial says.
func TestMatch(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	d := block.Disk{ID: "x", Facts: map[string]string{factName: "data"}}
	for _, tt := range []struct {
		d    block.Disk
		v    block.Device
		want bool
	}{
		{d, block.Device{Links: []string{"ata-x", link + "data"}}, true},
		{d, block.Device{Serial: "data", Vendor: "DO", Links: []string{link + "data2"}}, false},
		{d, block.Device{Links: []string{link + "data-part1"}}, false},
		{d, block.Device{Serial: "data"}, false},
		{block.Disk{ID: "x"}, block.Device{Links: []string{link}}, false},
	} {
		if got := p.Match(tt.d, tt.v); got != tt.want {
			t.Errorf("%+v is %+v: %v", tt.v, tt.d.Facts, got)
		}
	}
}

// TestGone: a droplet is gone when it is off or destroyed, and for a token that sees no droplets
// none is.
func TestGone(t *testing.T) {
	c := newCloud(t, still())
	id, _, _ := c.droplet(t, nyc)
	_, _, metadata := c.droplet(t, nyc)
	p := c.open(t, c.pool(), metadata)
	want := func(want bool) {
		t.Helper()
		if gone, err := p.Gone(t.Context(), strconv.Itoa(id)); err != nil || gone != want {
			t.Errorf("gone is %v, %v; want %v", gone, err, want)
		}
	}
	want(false)
	for _, power := range []struct {
		do   func(int) error
		gone bool
	}{{c.PowerOff, true}, {c.PowerOn, false}, {c.Destroy, true}} {
		if err := power.do(id); err != nil {
			t.Fatal(err)
		}
		want(power.gone)
	}
	conf := c.pool()
	conf.Droplet, conf.Region = 99, nyc // as if of another team
	blind := c.open(t, conf, "")
	if gone, err := blind.Gone(t.Context(), strconv.Itoa(id)); err == nil || gone {
		t.Errorf("gone is %v, %v", gone, err)
	}
}

// TestErroredAction: an attach that comes to nothing is begun anew.
func TestErroredAction(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	if testing.Short() {
		t.Skip("short: it waits for half a minute")
	}
	c := newCloud(t, quick())
	drv := c.daemon(t).driver(t)
	if err := drv.Create(t.Context(), "data", nil); err != nil {
		t.Fatal(err)
	}
	c.Calls.Add(fake.Fault{Call: "volumes.attach", What: fake.Errored, Times: 1})
	at := t.TempDir()
	if _, err := drv.Mount(t.Context(), "data", at); err != nil {
		t.Fatal(err)
	}
	if err := drv.Unmount(t.Context(), "data", at); err != nil {
		t.Error(err)
	}
}

// TestCalls counts, at the server, what each verb asks.
func TestCalls(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	c := newCloud(t, still())
	d := c.daemon(t)
	d.poll = 0 // as it is
	drv, at := d.driver(t), t.TempDir()
	ctx := t.Context()
	if err := drv.(volume.Pinger).Ping(ctx); err != nil {
		t.Fatal(err)
	}
	mount := func() error { _, err := drv.Mount(ctx, "Data", at); return err }
	unmount := func() error {
		if err := drv.Unmount(ctx, "Data", at); err != nil {
			return err
		}
		c.until(t, "the disk is off", func() bool {
			for _, j := range drv.(volume.Worker).Jobs() {
				if !j.Ended {
					return false
				}
			}
			return c.Calls.Counts()["volumes.detach"].Calls > 0
		})
		return nil
	}
	for _, step := range []struct {
		what string
		most map[string]int
		do   func() error
	}{
		{"create", map[string]int{"volumes.create": 1, "volumes.list": 3, "metadata": 1}, func() error { return drv.Create(ctx, "Data", nil) }},
		{"create again", map[string]int{"volumes.list": 1}, func() error { return drv.Create(ctx, "Data", nil) }},
		{"first mount", map[string]int{"volumes.list": 1, "volumes.attach": 1, "tags.create": 2, "tags.tag": 2, "tags.untag": 1}, mount},
		{"unmount", map[string]int{"volumes.detach": 1}, unmount},
		{"mount", map[string]int{"volumes.list": 1, "volumes.attach": 1}, mount},
		{"list", map[string]int{}, func() error {
			for _, err := range drv.Volumes(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"unmount again", map[string]int{"volumes.detach": 1}, unmount},
		{"remove", map[string]int{"volumes.delete": 1, "snapshots.list": 1}, func() error { return drv.Remove(ctx, "Data") }},
	} {
		c.Calls.Reset()
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		got := map[string]int{}
		for call, n := range c.Calls.Counts() {
			if got[call] = n.Calls; n.Calls > step.most[call] {
				t.Errorf("%s: %s was asked %d times, want at most %d", step.what, call, n.Calls, step.most[call])
			}
		}
		t.Logf("%-14s %v", step.what, got)
	}
}
