package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

// stuck is a driver that waits at its end.
type stuck struct {
	*fake
	gate chan struct{}
}

func (s stuck) Close() error { <-s.gate; return s.fake.Close() }

func TestCloseOfADriverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := stuck{newFake(t.TempDir()), make(chan struct{})}
		h, err := NewHandler(t.Context(), d, Options{Refresh: -1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errors.New("gave up after 5s"))
		defer cancel()
		start := time.Now()
		err = h.Close(ctx)
		if took := time.Since(start); err == nil || err.Error() != "close: driver has not ended: gave up after 5s" || took > 10*time.Second {
			t.Errorf("Close = %v after %v", err, took)
		}
		ctx, cancel = context.WithTimeoutCause(t.Context(), time.Second, errors.New("gave up after 1s"))
		defer cancel()
		if err := CloseDriver(ctx, d); err == nil || !strings.Contains(err.Error(), "gave up after 1s") {
			t.Errorf("CloseDriver = %v", err)
		}
		close(d.gate)
		synctest.Wait()
		if d.closed != 2 {
			t.Errorf("closed %d times", d.closed)
		}
	})
}

// bindOrphans mounts something where a crash might have left it.
func bindOrphans(t *testing.T, root string, names ...string) {
	t.Helper()
	testenv.Require(t, testenv.Root)
	for _, name := range names {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount(t.TempDir(), p, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(p, syscall.MNT_DETACH) })
	}
}

// Storage that hangs keeps a start for ten seconds, however much there is to do; what was
// left goes on beside the calls of engines.
func TestStartOnStorageThatHangs(t *testing.T) {
	for _, listing := range []bool{false, true} {
		t.Run(map[bool]string{false: "unmount", true: "listing and unmount"}[listing], func(t *testing.T) {
			o := Options{MountRoot: t.TempDir(), Refresh: time.Minute}
			bindOrphans(t, o.MountRoot, "a", "b", "c")
			synctest.Test(t, func(t *testing.T) {
				d := newFake(t.TempDir(), "a", "b", "c", "d")
				gate := make(chan struct{})
				d.setBefore(func(_ context.Context, verb, name string) error {
					if verb == "unmount" || listing {
						<-gate
					}
					if verb == "unmount" {
						_ = syscall.Unmount(filepath.Join(o.MountRoot, name), 0) // whether it is one is looked at below
					}
					return nil
				})
				start := time.Now()
				h := newTestHandler(t, d, o)
				if took := time.Since(start); took != startTime {
					t.Errorf("started after %v, want %v", took, startTime)
				}
				if n := len(d.calls("unmount")); n != 3 {
					t.Errorf("%d unmounts were begun, want 3", n)
				}
				// Nobody gets at what is being unmounted.
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := h.Mount(ctx, "a", id(1)); err == nil {
					t.Error("mounted what is about to be unmounted")
				}
				close(gate)
				time.Sleep(time.Minute)
				if left, err := h.mountpoints.found(); err != nil || len(left) > 0 {
					t.Errorf("not unmounted: %q, %v", left, err)
				}
				mustMount(t, h, "a", id(1))
				mustUnmount(t, h, "a", id(1))
			})
		})
	}
}
