package volumetest

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/leaktest"
	"github.com/remora-plugins/remora/sdk/volume"
)

func restartDirect() cases {
	return cases{
		"ReopenKeepsVolumes": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			b.create("two")
			p := b.mount("one")
			write(t, p, "f", "x")
			b.unmount("one", p)
			b.remove("two")
			for range 2 {
				b.reopen()
				b.mustHave("one")
				p = b.mount("one")
				mustRead(t, p, "f", "x")
				b.unmount("one", p)
			}
			b.create("one")
			p = b.mount("one")
			mustRead(t, p, "f", "x")
			b.unmount("one", p)
		},
		"ReopenWhileMounted": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			p := b.mount("one")
			write(t, p, "f", "x")
			b.reopen()
			mustRead(t, p, "f", "x")
			before := len(leaktest.MountsBelow(t, b.root))
			if q := b.mount("one"); q != p {
				t.Errorf("mounted at %q, and after a restart at %q", p, q)
			}
			if after := len(leaktest.MountsBelow(t, b.root)); after != before {
				t.Errorf("%d mounts, and after a restart and a Mount %d", before, after)
			}
			b.reopen()
			b.unmount("one", p)
			if left := leaktest.MountsBelow(t, b.root); len(left) > 0 {
				t.Errorf("a mount from before a restart was not unmounted: %q", left)
			}
			b.reopen()
			p = b.mount("one")
			mustRead(t, p, "f", "x")
			b.unmount("one", p)
		},
	}
}

// holding returns Options that say whether containers hold the volumes, and the switch.
func holding() (change func(*volume.Options), held *atomic.Bool) {
	held = new(atomic.Bool)
	return func(o *volume.Options) {
		o.Held = func(context.Context, string) (bool, bool) { return held.Load(), true }
	}, held
}

func restartWire() cases {
	return cases{
		"PluginRestartKeepsVolumes": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			p.create("two")
			for range 2 {
				p.restart()
				if got := p.list(); !slices.Equal(got, []string{"one", "two"}) {
					t.Fatalf("List after a restart: %q", got)
				}
				p.mustGet("one")
			}
		},
		"PluginRestartUnderLiveMount": func(t *testing.T, c Config) {
			change, held := holding()
			p := startPlugin(t, c, change)
			p.create("one")
			m := p.mount("one", mountID(1))
			held.Store(true)
			write(t, m, "f", "x")
			for range 2 {
				p.restart()
				mustRead(t, m, "f", "x")
				if n := p.handler.Reconcile(t.Context()); len(n) != 0 {
					t.Errorf("Reconcile changed what a container holds: %q", n)
				}
				if got := p.mount("one", mountID(2)); got != m {
					t.Errorf("mounted at %q, before the restart at %q", got, m)
				}
				p.unmount("one", mountID(2))
				p.mustBeMounted("one", 1)
			}
			p.unmount("one", mountID(1))
			p.mustBeMounted("one", 0)
			mustRead(t, p.mount("one", mountID(3)), "f", "x")
			p.unmount("one", mountID(3))
		},
		"PodmanMountOutlivesRestart": func(t *testing.T, c Config) {
			// Podman counts for itself and comes back with the one ID that it has: no look
			// at containers decides about it.
			p := startPlugin(t, c, nil)
			p.create("one")
			id := "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"
			p.mount("one", id)
			p.restart()
			p.activate()
			p.handler.Reconcile(t.Context())
			p.mustBeMounted("one", 1)
			p.unmount("one", id)
			p.mustBeMounted("one", 0)
		},
		"EngineRestartedUnderLivePlugin": func(t *testing.T, c Config) {
			// The containers lived on, as with live-restore: their one Unmount still comes.
			change, held := holding()
			p := startPlugin(t, c, change)
			p.activate()
			p.create("one")
			m := p.mount("one", mountID(1))
			held.Store(true)
			write(t, m, "f", "x")
			p.activate()
			p.handler.Reconcile(t.Context())
			mustRead(t, m, "f", "x")
			p.mustBeMounted("one", 1)
			p.mount("one", mountID(2))
			p.unmount("one", mountID(1))
			mustRead(t, m, "f", "x")
			p.unmount("one", mountID(2))
			p.mustBeMounted("one", 0)
		},
		"EngineKilled": func(t *testing.T, c Config) {
			// Nobody sends the Unmount of a container that died with its engine, and the
			// container is started again with the same mount ID.
			p := startPlugin(t, c, nil)
			p.activate()
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			p.mount("one", mountID(2))
			p.activate()
			mustRead(t, p.mount("one", mountID(1)), "f", "x")
			p.unmount("one", mountID(1))
			p.handler.Reconcile(t.Context())
			p.mustBeMounted("one", 0)
			p.remove("one")
		},
		"MountsOfADeadEngineDoNotHinderRemove": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			p.mount("one", mountID(1))
			p.activate()
			p.remove("one")
			p.mustBeGone("one")
		},
	}
}

// rebooted makes the ledger one that was written before the last boot.
func rebooted(t *testing.T, ledger string) {
	t.Helper()
	b, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	now := bytes.TrimSpace(boot)
	before := bytes.Replace(b, now, []byte("00000000-0000-0000-0000-000000000000"), 1)
	if bytes.Equal(b, before) {
		t.Fatalf("the ledger does not say in which boot it was written: %.100q", b)
	}
	if err := os.WriteFile(ledger, before, 0o600); err != nil {
		t.Fatal(err)
	}
}
