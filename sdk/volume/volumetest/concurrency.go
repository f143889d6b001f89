package volumetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func concurrencyDirect() cases {
	return cases{
		"DifferentNamesAtOnce": func(t *testing.T, c Config) {
			b := newBare(t, c)
			var all sync.WaitGroup
			for i := range 8 {
				name := fmt.Sprintf("v%d", i)
				target := b.target(name)
				all.Go(func() {
					for range 3 {
						if err := life(t, b.Driver, name, target, b.options()); err != nil {
							t.Errorf("%s: %v", name, err)
						}
					}
				})
			}
			all.Go(func() {
				for range 20 {
					for _, err := range b.Volumes(t.Context()) {
						if err != nil {
							t.Errorf("Volumes beside other calls: %v", err)
						}
					}
				}
			})
			all.Wait()
			b.mustHave()
		},
	}
}

// life is all that happens to a volume.
func life(t *testing.T, d volume.Driver, name, target string, opts map[string]string) error {
	ctx := t.Context()
	if err := d.Create(ctx, name, opts); err != nil {
		return err
	}
	p, err := d.Mount(ctx, name, target)
	if err != nil {
		return err
	}
	if err := d.Unmount(ctx, name, p); err != nil {
		return err
	}
	return d.Remove(ctx, name)
}

func concurrencyWire() cases {
	return cases{
		"ParallelCreate": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			atOnce(16, func(int) {
				if err := p.volumes.Create(t.Context(), "one", clone(c.Options)); err != nil {
					t.Errorf("Create: %v", err)
				}
			})
			if got := p.list(); len(got) != 1 {
				t.Errorf("List: %q", got)
			}
		},
		"ParallelMount": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			got := make([]string, 16)
			atOnce(len(got), func(i int) {
				var err error
				if got[i], err = p.volumes.Mount(t.Context(), "one", mountID(i/2)); err != nil {
					t.Errorf("Mount: %v", err)
				}
			})
			for _, m := range got {
				if m != got[0] {
					t.Errorf("mounted at %q and at %q", got[0], m)
				}
			}
			p.mustBeMounted("one", len(got))
			if n := p.faults.count("mount"); n != 1 {
				t.Errorf("the driver mounted %d times, want once", n)
			}
			atOnce(len(got), func(i int) {
				if err := p.volumes.Unmount(t.Context(), "one", mountID(i/2)); err != nil {
					t.Errorf("Unmount: %v", err)
				}
			})
			p.mustBeMounted("one", 0)
		},
		"ParallelMountAndUnmount": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			atOnce(8, func(i int) {
				for range 5 {
					m, err := p.volumes.Mount(t.Context(), "one", mountID(i))
					if err != nil {
						t.Errorf("Mount: %v", err)
						return
					}
					// As long as this one is mounted, nobody else's Unmount takes it away.
					write(t, m, fmt.Sprintf("f%d", i), "x")
					if err := p.volumes.Unmount(t.Context(), "one", mountID(i)); err != nil {
						t.Errorf("Unmount: %v", err)
					}
				}
			})
			p.mustBeMounted("one", 0)
			m := p.mount("one", mountID(0))
			for i := range 8 {
				mustRead(t, m, fmt.Sprintf("f%d", i), "x")
			}
			p.unmount("one", mountID(0))
		},
		"RandomMountsAreCounted": func(t *testing.T, c Config) {
			change, held := holding()
			held.Store(true) // so that what a restart finds is believed
			p := startPlugin(t, c, change)
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			p.create("one")
			r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a sequence that can be had again
			want := map[string]int{}
			for range 100 {
				id := mountID(r.IntN(4))
				switch r.IntN(9) {
				case 0, 1, 2, 3:
					p.mount("one", id)
					want[id]++
				case 4, 5, 6, 7:
					p.unmount("one", id)
					want[id] = max(want[id]-1, 0)
				default:
					p.restart()
				}
				got := p.mounts("one")
				for id, n := range want {
					if got[id] != n {
						t.Fatalf("mount ID %s counts %d, want %d", id, got[id], n)
					}
				}
			}
			for id, n := range want {
				for range n {
					p.unmount("one", id)
				}
			}
			p.mustBeMounted("one", 0)
		},
		"SlowVolumeHoldsUpNobody": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("slow")
			p.create("fast")
			release := p.hang("slow")
			var stuck sync.WaitGroup
			stuck.Go(func() {
				if _, err := p.volumes.Mount(t.Context(), "slow", mountID(1)); err != nil {
					t.Errorf("Mount: %v", err)
				}
			})
			eventually(t, "the driver hangs", release.reached)
			start := time.Now()
			p.mount("fast", mountID(2))
			p.unmount("fast", mountID(2))
			p.create("other")
			p.remove("other")
			p.mustGet("slow")
			p.list()
			if _, err := p.volumes.Path(t.Context(), "slow"); err != nil {
				t.Errorf("Path of the slow one: %v", err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("calls for other volumes took %v", took)
			}
			release.open()
			stuck.Wait()
			p.unmount("slow", mountID(1))
		},
		"SlowVolumeIsAnsweredInTime": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("slow") // as slowly as it likes
			p.kill()
			p.options.LongTimeout, p.options.ShortTimeout = 50*time.Millisecond, 50*time.Millisecond
			p.start()
			release := p.hang("slow")
			_, err := p.volumes.Mount(t.Context(), "slow", mountID(1))
			mustBeClass(t, "Mount of what hangs", err, context.DeadlineExceeded)
			mustBeClass(t, "Mount behind it", p.volumes.Create(t.Context(), "slow", nil), context.DeadlineExceeded)
			p.mustGet("slow")
			release.open()
			// The mount that nobody waited for is taken back.
			eventually(t, "the call has ended", func() bool { return p.volumes.Unmount(t.Context(), "slow", mountID(9)) == nil })
			p.mustBeMounted("slow", 0)
		},
		"CallerHangsUpInMidMount": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			release := p.hang("one")
			ctx, cancel := context.WithCancel(t.Context())
			var caller sync.WaitGroup
			caller.Go(func() {
				if _, err := p.volumes.Mount(ctx, "one", mountID(1)); !errors.Is(err, context.Canceled) {
					t.Errorf("Mount of a caller that hung up: %v", err)
				}
			})
			eventually(t, "the driver hangs", release.reached)
			cancel()
			caller.Wait()
			// The plugin hears of it a moment later than the caller; a call that waits behind
			// the mount comes after what becomes of it.
			time.Sleep(50 * time.Millisecond)
			release.open()
			p.unmount("one", mountID(9))
			p.mustBeMounted("one", 0)
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			p.unmount("one", mountID(1))
			p.mustBeMounted("one", 0)
		},
		"PanicIsAnError": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			for range 2 {
				p.faults.inject(func(context.Context, string, string) error { panic("in the driver") })
				_, err := p.volumes.Mount(t.Context(), "one", mountID(1))
				if err == nil || errors.Is(err, errdefs.ErrUnavailable) {
					t.Errorf("Mount in which the driver panics: %v", err)
				}
				p.faults.inject(nil)
				p.mount("one", mountID(1))
				p.unmount("one", mountID(1))
			}
			p.mustBeMounted("one", 0)
		},
	}
}

// atOnce runs f n times at once and waits for all.
func atOnce(n int, f func(i int)) {
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	all.Wait()
}

// hung is a volume whose calls hang in the driver, whatever their context says.
type hung struct {
	arrived, gate chan struct{}
	once, twice   sync.Once
}

// hang has every call of the driver for name hang from now on.
func (p *plugin) hang(name string) *hung {
	return hang(p.t, p.faults, func(_, object string) bool { return object == name })
}

// hang has every call hang from now on that is one of those.
func hang(t *testing.T, f *faults, those func(verb, object string) bool) *hung {
	h := &hung{arrived: make(chan struct{}), gate: make(chan struct{})}
	t.Cleanup(h.open)
	// A plugin that waits for it is late then, and the case says so.
	late := time.AfterFunc(patience*3/2, h.open)
	t.Cleanup(func() { late.Stop() })
	f.inject(func(_ context.Context, verb, object string) error {
		if those(verb, object) {
			h.once.Do(func() { close(h.arrived) })
			<-h.gate
		}
		return nil
	})
	return h
}

// reached tells whether a call hangs.
func (h *hung) reached() bool {
	select {
	case <-h.arrived:
		return true
	default:
		return false
	}
}

// open lets all calls go on.
func (h *hung) open() { h.twice.Do(func() { close(h.gate) }) }
