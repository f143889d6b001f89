package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// Each verb by what it is called here and how long it may take.
func verbs(h *Handler) map[string]struct {
	limit time.Duration
	call  func(ctx context.Context) error
} {
	type verb = struct {
		limit time.Duration
		call  func(ctx context.Context) error
	}
	return map[string]verb{
		"create":  {DefaultLongTimeout, func(ctx context.Context) error { return h.Create(ctx, "a", nil) }},
		"mount":   {DefaultLongTimeout, func(ctx context.Context) error { _, err := h.Mount(ctx, "a", id(2)); return err }},
		"unmount": {DefaultShortTimeout, func(ctx context.Context) error { return h.Unmount(ctx, "a", id(1)) }},
		"remove":  {DefaultShortTimeout, func(ctx context.Context) error { return h.Remove(ctx, "a") }},
		"volumes": {DefaultShortTimeout, func(ctx context.Context) error { _, err := h.Get(ctx, "b"); return err }},
	}
}

func TestDriverThatHangs(t *testing.T) {
	for _, verb := range []string{"create", "mount", "unmount", "remove", "volumes"} {
		for _, heeds := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/heeds=%t", verb, heeds), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newFake(t.TempDir(), "a")
					h := newTestHandler(t, d, Options{})
					if verb == "unmount" {
						mustMount(t, h, "a", id(1))
					}
					gate := make(chan struct{})
					d.setBefore(func(ctx context.Context, called, _ string) error {
						if called != verb {
							return nil
						}
						if heeds {
							<-ctx.Done()
							return ctx.Err()
						}
						<-gate
						return nil
					})
					v := verbs(h)[verb]
					start := time.Now()
					err := v.call(t.Context())
					mustBe(t, verb, err, context.DeadlineExceeded)
					want := v.limit
					if !heeds && verb != "volumes" { // a look has nothing to leave half done
						want += bounded.Settle
					}
					if took := time.Since(start); took != want {
						t.Errorf("answered after %v, want %v", took, want)
					}
					if !strings.Contains(err.Error(), fmt.Sprintf("gave up after %v", v.limit)) || !strings.Contains(err.Error(), `"`) {
						t.Errorf("the error does not say for whom and after what time: %v", err)
					}
					close(gate)
				})
			})
		}
	}
}

func TestWaitingCountsAsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{})
		gate := make(chan struct{})
		d.setBefore(func(_ context.Context, verb, _ string) error {
			if verb == "create" {
				time.Sleep(time.Minute)
				return nil
			}
			<-gate
			return nil
		})
		var first sync.WaitGroup
		first.Go(func() {
			if err := h.Create(t.Context(), "a", nil); err != nil {
				t.Errorf("Create: %v", err)
			}
		})
		synctest.Wait()
		start := time.Now()
		_, err := h.Mount(t.Context(), "a", id(1))
		mustBe(t, "Mount", err, context.DeadlineExceeded)
		if took := time.Since(start); took != DefaultLongTimeout+bounded.Settle {
			t.Errorf("answered after %v, want %v", took, DefaultLongTimeout+bounded.Settle)
		}
		// A third never gets the lock.
		start = time.Now()
		err = h.Unmount(t.Context(), "a", id(1))
		mustBe(t, "Unmount", err, context.DeadlineExceeded)
		if took := time.Since(start); took != DefaultShortTimeout || !strings.Contains(err.Error(), "another call") {
			t.Errorf("answered after %v: %v", took, err)
		}
		// And other names never knew.
		start = time.Now()
		d.setBefore(nil)
		if err := h.Create(t.Context(), "b", nil); err != nil || time.Since(start) != 0 {
			t.Errorf("Create of another: %v after %v", err, time.Since(start))
		}
		close(gate)
		first.Wait()
	})
}

func TestCallerHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{})
		d.setBefore(func(context.Context, string, string) error { time.Sleep(10 * time.Second); return nil })
		for _, verb := range []string{"mount", "create"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			err := verbs(h)[verb].call(ctx)
			cancel()
			mustBe(t, verb, err, context.Canceled)
			if took := time.Since(start); took != time.Second {
				t.Errorf("%s: returned after %v, the caller hung up after 1s", verb, took)
			}
			time.Sleep(time.Minute)
		}
		// The mount was made, and taken back; the volume was made, and stays.
		if got := d.calls("unmount"); len(got) != 1 {
			t.Errorf("driver: %q, want one unmount", d.calls(""))
		}
		if rec := h.mounts.get("a"); rec.total() != 0 || rec.Mountpoint != "" {
			t.Errorf("record %+v of a mount that nobody waited for", rec.record)
		}
		if !d.has("a") {
			t.Error("a Create that went on has made nothing")
		}
	})
}

func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{})
		mustMount(t, h, "a", id(1))
		for _, verb := range []string{"create", "unmount", "volumes"} {
			d.setBefore(func(context.Context, string, string) error { panic("x") })
			err := verbs(h)[verb].call(t.Context())
			if err == nil || !strings.Contains(err.Error(), "panicked") || errdefs.Class(err) != nil {
				t.Errorf("%s: %v", verb, err)
			}
		}
		d.setBefore(nil)
		mustUnmount(t, h, "a", id(1))
		// A panic in what is done after the caller has gone has no caller to go to.
		d.setBefore(func(_ context.Context, verb, _ string) error {
			if verb == "unmount" {
				panic("x")
			}
			time.Sleep(time.Minute)
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := h.Mount(ctx, "a", id(1))
		mustBe(t, "Mount", err, context.Canceled)
		time.Sleep(time.Hour)
		d.setBefore(nil)
		mustMount(t, h, "a", id(3))
	})
}

func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{Linger: 10 * time.Second})
		mustMount(t, h, "a", id(1))
		mustUnmount(t, h, "a", id(1))
		time.Sleep(9 * time.Second)
		mustMount(t, h, "a", id(2))
		time.Sleep(time.Minute)
		if got := d.calls("unmount"); len(got) != 0 {
			t.Fatalf("unmounted while it was mounted again: %q", d.calls(""))
		}
		mustUnmount(t, h, "a", id(2))
		time.Sleep(10*time.Second - 1)
		if got := d.calls("unmount"); len(got) != 0 {
			t.Fatalf("unmounted too early: %q", d.calls(""))
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if got := d.calls("unmount"); len(got) != 1 || len(d.calls("mount")) != 1 {
			t.Errorf("driver: %q, want one mount and one unmount", d.calls(""))
		}
		// Stopped in the meantime, it stays mounted for the next process.
		mustMount(t, h, "a", id(1))
		mustUnmount(t, h, "a", id(1))
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if got := d.calls("unmount"); len(got) != 1 {
			t.Errorf("driver: %q", d.calls(""))
		}
	})
}

func TestFailedLingeringUnmountIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{Linger: time.Second})
		mustMount(t, h, "a", id(1))
		d.setBefore(func(context.Context, string, string) error { return errors.New("busy") })
		mustUnmount(t, h, "a", id(1))
		time.Sleep(time.Minute)
		d.setBefore(nil)
		h.Reconcile(t.Context())
		if rec := h.mounts.get("a"); rec.Mountpoint != "" || len(d.calls("unmount")) != 2 {
			t.Errorf("record %+v, driver %q", rec.record, d.calls(""))
		}
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		d.setBefore(func(ctx context.Context, _, _ string) error {
			<-ctx.Done()
			return errdefs.Errorf(errdefs.ErrUnavailable, "out of reach")
		})
		start := time.Now()
		h := newTestHandler(t, d, Options{Refresh: time.Minute})
		if took := time.Since(start); took != startTime {
			t.Errorf("a start without storage took %v, want %v", took, startTime)
		}
		if _, err := h.Get(t.Context(), "a"); errors.Is(err, errdefs.ErrNotFound) || err == nil {
			t.Errorf("Get before the storage was heard of: %v", err)
		}
		d.setBefore(nil)
		// The listing that hangs now ends within its limit, and the next comes soon after.
		time.Sleep(DefaultLongTimeout + 5*time.Second)
		if _, loaded := h.index.list(); !loaded {
			t.Errorf("storage is back for a while, and was not asked: %q", d.calls(""))
		}
		// A listing of 30 seconds is made every ten minutes at most.
		d.setBefore(func(context.Context, string, string) error { time.Sleep(30 * time.Second); return nil })
		before := len(d.calls("volumes"))
		time.Sleep(100 * time.Minute)
		if n := len(d.calls("volumes")) - before; n < 8 || n > 11 {
			t.Errorf("a listing of 30 seconds was made %d times in 100 minutes", n)
		}
		// What fails is asked for again at the usual pace.
		d.setBefore(func(context.Context, string, string) error {
			time.Sleep(40 * time.Second)
			return errors.New("broken")
		})
		time.Sleep(20 * time.Minute)
		before = len(d.calls("volumes"))
		time.Sleep(100 * time.Minute)
		if n := len(d.calls("volumes")) - before; n < 55 {
			t.Errorf("storage that does not answer was asked %d times in 100 minutes", n)
		}
		if got, err := h.Get(t.Context(), "a"); err != nil || got.Name != "a" {
			t.Errorf("memory has gone: %v", err)
		}
	})
}

func TestListingsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		gate := make(chan struct{})
		d.setBefore(func(context.Context, string, string) error { <-gate; return nil })
		h := newTestHandler(t, d, Options{Refresh: time.Minute})
		time.Sleep(24 * time.Hour)
		if n := len(d.calls("volumes")); n != 1 {
			t.Errorf("%d listings hang in the driver, want one", n)
		}
		close(gate)
		time.Sleep(5 * time.Minute)
		if _, loaded := h.index.list(); !loaded {
			t.Error("not listed after the one that hung had ended")
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		h := newTestHandler(t, d, Options{Ledger: t.TempDir() + "/ledger", Refresh: time.Minute})
		d.setBefore(func(context.Context, string, string) error { time.Sleep(20 * time.Second); return nil })
		var call sync.WaitGroup
		call.Go(func() {
			// It ends after the ledger was closed: a mount that cannot be written down is none.
			if _, err := h.Mount(t.Context(), "a", id(1)); !errors.Is(err, errStopped) {
				t.Errorf("Mount in flight while the ledger is closed: %v", err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		mustBe(t, "Close with a call in the driver", h.Close(ctx), context.DeadlineExceeded)
		if d.closed != 1 {
			t.Errorf("driver closed %d times", d.closed)
		}
		call.Wait()
		// The next Handler may use what it mounted, and unmounts it where nobody does.
		if got := d.calls("unmount"); len(got) != 0 {
			t.Errorf("driver: %q, want the mount left to the next Handler", d.calls(""))
		}
	})
}

// A pool is replaced while a mount hangs longer than anybody waits. When it comes back,
// it takes nothing from the Handler that has followed.
func TestCallThatOutlivesItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir(), "a")
		o := Options{Ledger: t.TempDir() + "/ledger"}
		old := newTestHandler(t, d, o)
		d.setBefore(func(_ context.Context, verb, _ string) error {
			if verb == "mount" {
				time.Sleep(time.Hour)
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := old.Mount(ctx, "a", id(1))
		mustBe(t, "Mount that hangs", err, context.Canceled)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		mustBe(t, "Close", old.Close(ctx), context.DeadlineExceeded)
		d.setBefore(nil)
		h := newTestHandler(t, d, o)
		mustMount(t, h, "a", id(2))
		time.Sleep(2 * time.Hour)
		if got := d.calls("unmount"); len(got) != 0 {
			t.Errorf("driver: %q", d.calls(""))
		}
		// Nor does a call that finds a mount of its own.
		mustBe(t, "detach", old.detach(t.Context(), "a", d.dir), errStopped)
		mustUnmount(t, h, "a", id(2))
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFake(t.TempDir())
		h := newTestHandler(t, d, Options{})
		if err := h.Ping(t.Context()); err != nil {
			t.Errorf("Ping by way of the listing: %v", err)
		}
		gate := make(chan struct{})
		p := newTestHandler(t, pinging{d, func() error { <-gate; return nil }}, Options{})
		mustBe(t, "Ping that hangs", p.Ping(t.Context()), context.DeadlineExceeded)
		close(gate)
		if err := newTestHandler(t, pinging{d, func() error { panic("x") }}, Options{}).Ping(t.Context()); err == nil {
			t.Error("Ping that panics succeeds")
		}
	})
}

type pinging struct {
	*fake
	ping func() error
}

func (p pinging) Ping(context.Context) error { return p.ping() }
func (p pinging) Scope() string              { return "global" }

// stating is a fake whose volumes have a state that changes by itself.
type stating struct {
	*fake
	state string
}

func (s *stating) Status(name string) (map[string]any, bool) {
	return map[string]any{"state": s.state}, name != "unknown"
}

// TestStatusIsOfNow: what a volume says of itself is not as old as the last listing.
func TestStatusIsOfNow(t *testing.T) {
	d := &stating{newFake(""), "available"}
	h := newTestHandler(t, d, Options{Refresh: -1})
	for _, name := range []string{"a", "unknown"} {
		if err := h.Create(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	d.state = "taken from this host"
	if v, err := h.Get(t.Context(), "a"); err != nil || v.Status["state"] != d.state {
		t.Errorf("Get: %v, %v", v.Status, err)
	}
	if v, err := h.Get(t.Context(), "unknown"); err != nil || v.Status != nil {
		t.Errorf("Get of one that the driver does not know: %v, %v", v.Status, err)
	}
}

func TestScope(t *testing.T) {
	if got := newTestHandler(t, newFake(""), Options{}).Scope(); got != "local" {
		t.Errorf("scope of a driver without one: %q", got)
	}
	if got := newTestHandler(t, pinging{newFake(""), nil}, Options{}).Scope(); got != "global" {
		t.Errorf("scope: %q", got)
	}
}

func TestCreateKeepsWhatIsKnown(t *testing.T) {
	h := newTestHandler(t, newFake(""), Options{})
	if err := h.Create(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	made := time.Now()
	h.index.put(Info{Name: "a", CreatedAt: made}) // as a listing would
	if err := h.Create(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	if v, err := h.Get(t.Context(), "a"); err != nil || !v.CreatedAt.Equal(made) {
		t.Errorf("Get after a second Create: %+v, %v", v, err)
	}
}

func TestObserverAndLog(t *testing.T) {
	var calls []sdk.Call
	d := newFake(t.TempDir(), "a")
	h := newTestHandler(t, d, Options{
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		Observe: func(_ context.Context, c sdk.Call) { calls = append(calls, c) },
	})
	post(t, h, "Get", []byte(`{"Name":"a"}`))
	post(t, h, "Get", []byte(`{"Name":"b"}`))
	if len(calls) != 2 || calls[0].Method != "VolumeDriver.Get" || calls[0].Object != "a" || calls[0].Err != nil ||
		!errors.Is(calls[1].Err, errdefs.ErrNotFound) {
		t.Errorf("observed %+v", calls)
	}
}
