package volumetest

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// patience is what an engine's user has for an answer out of memory, on a slow machine.
const patience = 20 * time.Second

// outage is storage that neither answers nor fails, which is how most storage ends.
func outage() cases {
	return cases{
		// containerd#1722, docker/for-linux#397, moby#33994: a server was gone, and whatever
		// looked at any volume hung with it.
		"HangingListHoldsUpNobody": func(t *testing.T, c Config) {
			p := startPlugin(t, c, func(o *volume.Options) { o.ShortTimeout = time.Second })
			p.create("one")
			release := hang(t, p.faults, looksAtStorage)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var listing sync.WaitGroup
			listing.Go(func() {
				if err := p.handler.RefreshNow(ctx); err == nil {
					t.Error("RefreshNow of storage that hangs succeeds")
				}
			})
			eventually(t, "the driver hangs", release.reached)
			start := time.Now()
			for range 3 {
				p.mustGet("one")
				if got := p.list(); !slices.Equal(got, []string{"one"}) {
					t.Errorf("List: %q", got)
				}
				write(t, p.mount("one", mountID(1)), "f", "x")
				if _, err := p.volumes.Path(t.Context(), "one"); err != nil {
					t.Errorf("Path: %v", err)
				}
				p.unmount("one", mountID(1))
			}
			if took := time.Since(start); took > patience {
				t.Errorf("what memory knows was answered after %v", took)
			}
			// What memory has not is never said to be gone, and not waited for without end.
			if a, err := p.send(http.MethodPost, "Get", `{"Name":"unknown"}`, nil); err == nil {
				t.Errorf("Get of an unknown volume was answered with %d %q", a.status, a.body)
			}
			_, err := p.handler.Get(t.Context(), "unknown")
			mustBeClass(t, "Get of an unknown volume", err, context.DeadlineExceeded)
			cancel()
			listing.Wait()
			release.open()
			p.faults.inject(nil)
			eventually(t, "the storage is listed again", func() bool { return p.handler.RefreshNow(t.Context()) == nil })
			p.mustGet("one")
			p.mustBeGone("unknown")
		},
		// The plugin starts while its storage hangs. It is there for its engine all the same,
		// and nobody is told that there are no volumes.
		"StartWhileStorageHangs": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			p.kill()
			driver := p.driver
			away := &faults{Driver: driver}
			p.driver = away.wrap()
			release := hang(t, away, looksAtStorage)
			p.options.LongTimeout, p.options.ShortTimeout = time.Second, time.Second
			start := time.Now()
			p.start()
			if took := time.Since(start); took > patience {
				t.Errorf("the plugin started after %v", took)
			}
			if _, err := p.volumes.List(t.Context()); err == nil {
				t.Error("List before the storage was heard of says that there is nothing")
			}
			if a, err := p.send(http.MethodPost, "Get", `{"Name":"one"}`, nil); err == nil {
				t.Errorf("Get before the storage was heard of was answered with %d %q", a.status, a.body)
			}
			if _, ok := driver.(volume.Pinger); !ok && p.handler.Ping(t.Context()) == nil {
				t.Error("Ping before the storage was heard of succeeds")
			}
			release.open()
			away.inject(nil)
			eventually(t, "the storage is listed", func() bool { return p.handler.RefreshNow(t.Context()) == nil })
			p.mustGet("one")
			mustRead(t, m, "f", "x")
			p.unmount("one", mountID(1))
			p.mustBeMounted("one", 0)
			p.kill()
			p.driver = driver
		},
		// An engine that starts asks for each of its volumes and mounts those of containers
		// that restart. One whose server is gone held up all the rest.
		"SlowRemoteBlocksNoRestore": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for _, name := range []string{"slow", "two", "three"} {
				p.create(name)
			}
			p.restart()
			p.activate()
			release := hang(t, p.faults, func(verb, object string) bool { return object == "slow" || verb == "volumes" })
			var stuck sync.WaitGroup
			stuck.Go(func() {
				if _, err := p.volumes.Mount(t.Context(), "slow", mountID(1)); err != nil {
					t.Errorf("Mount that took long: %v", err)
				}
			})
			stuck.Go(func() {
				if err := p.handler.RefreshNow(t.Context()); err != nil {
					t.Errorf("RefreshNow that took long: %v", err)
				}
			})
			eventually(t, "the driver hangs", release.reached)
			start := time.Now()
			for _, name := range []string{"slow", "two", "three"} {
				p.mustGet(name)
			}
			for i, name := range []string{"two", "three"} {
				write(t, p.mount(name, mountID(i)), "f", "x")
			}
			if took := time.Since(start); took > patience {
				t.Errorf("the others were restored after %v", took)
			}
			release.open()
			stuck.Wait()
			p.unmount("two", mountID(0))
			p.unmount("three", mountID(1))
			p.unmount("slow", mountID(1))
			p.mustBeMounted("slow", 0)
		},
		// juicedata/docker-volume-juicefs#37, rclone/rclone#9853: after a reboot the counts of
		// before were believed, or the volume was another than before.
		"Reboot": func(t *testing.T, c Config) {
			change, held := holding()
			held.Store(true) // so that nothing but the reboot makes the counts wrong
			p := startPlugin(t, c, change)
			p.create("one")
			m := p.mount("one", mountID(1))
			p.mount("one", mountID(2))
			write(t, m, "f", "x")
			before := p.mustGet("one")
			p.kill()
			rebooted(t, p.options.Ledger)
			lost := vanish(t, m)
			p.restart()
			p.activate()
			after, err := p.volumes.Get(t.Context(), "one")
			if err != nil {
				if lost { // the data may be of those that end with their mount
					mustBeClass(t, "Get after a reboot", err, errdefs.ErrNotFound)
					p.create("one")
					return
				}
				t.Fatalf("Get after a reboot: %v", err)
			}
			if !before.CreatedAt.IsZero() && !after.CreatedAt.Equal(before.CreatedAt) {
				t.Errorf("created at %v, and after a reboot at %v", before.CreatedAt, after.CreatedAt)
			}
			p.mustBeMounted("one", 0)
			again := p.mount("one", mountID(1))
			if lost && !isMount(t, again) {
				t.Errorf("Mount gives out %s, on which nothing is mounted any more", again)
			}
			mustRead(t, again, "f", "x")
			p.mustBeMounted("one", 1)
			p.unmount("one", mountID(1))
			p.mustBeMounted("one", 0)
			p.remove("one")
		},
	}
}

// looksAtStorage are the verbs that answer what there is.
func looksAtStorage(verb, _ string) bool { return verb == "volumes" || verb == "inspect" }
