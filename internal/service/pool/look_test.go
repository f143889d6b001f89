package pool

import (
	"context"
	"iter"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// pinged is a driver without volumes that is looked at.
type pinged struct {
	ping func(context.Context) error
}

func (pinged) Create(context.Context, string, map[string]string) error { return errdefs.ErrDenied }

func (pinged) Remove(context.Context, string) error { return errdefs.ErrNotFound }

func (pinged) Mount(context.Context, string, string) (string, error) { return "", errdefs.ErrNotFound }

func (pinged) Unmount(context.Context, string, string) error { return errdefs.ErrNotFound }

func (pinged) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(func(volume.Info, error) bool) {}
}

func (d pinged) Ping(ctx context.Context) error { return d.ping(ctx) }

// newLookedAt returns a pool that can be looked at, and closes it when its test ends.
func newLookedAt(t *testing.T, ping func(context.Context) error) *Pool {
	h, err := volume.NewHandler(t.Context(), pinged{ping: ping}, volume.Options{Refresh: -1})
	if err != nil {
		t.Fatal(err)
	}
	p := New(t.Context(), Options{Handler: h, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := p.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

func TestLookAtStorageThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings atomic.Int32
		back := make(chan struct{})
		p := newLookedAt(t, func(context.Context) error {
			pings.Add(1)
			<-back
			return nil
		})
		start := time.Now()
		for range 3 {
			p.Look(t.Context())
		}
		if took := time.Since(start); took != 3*lookTime {
			t.Errorf("three looks took %s, want %s", took, 3*lookTime)
		}
		if n := pings.Load(); n != 1 {
			t.Errorf("%d looks hang, want one", n)
		}
		if err := p.Reachable(); err == nil || err.Error() != "storage does not answer within 5s" {
			t.Errorf("storage that hangs: %v", err)
		}
		close(back)
		synctest.Wait()
		if err := p.Reachable(); err != nil {
			t.Errorf("storage that is back: %v", err)
		}
	})
}

// One who asks and does not wait for the answer says nothing of the storage.
func TestLookByOneWhoHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		p := newLookedAt(t, func(context.Context) error { <-block; return nil })
		p.reach.Store(new(error))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p.Look(ctx)
		if err := p.Reachable(); err != nil {
			t.Errorf("reachable: %v", err)
		}
		close(block)
	})
}
