package csi

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// waysOfFailing are what a call may come to that has, or has not, had its effect.
var waysOfFailing = map[string]csitest.What{
	"Aborted": csitest.Code(codes.Aborted), "Internal": csitest.Code(codes.Internal), "Unavailable": csitest.Code(codes.Unavailable),
	"Deadline": csitest.Code(codes.DeadlineExceeded), "Hang": csitest.Hang, "Late": csitest.Late, "Crash": csitest.Crash,
}

// TestFaults has each call of a life fail once in each way, before it has its effect and after it. The engine asks again,
// where it has to; in the end there is one volume, its data is what was written, and nothing of it is left.
func TestFaults(t *testing.T) {
	t.Parallel()
	chance := rand.New(rand.NewPCG(testenv.Seed(t), 0)) //nolint:gosec // chance of a test
	for _, rpc := range []string{callCreate, callAttach, callStage, callPublish, callUnpublish, callUnstage, callDetach, callDelete} {
		for _, when := range []csitest.When{csitest.Before, csitest.After} {
			for name, what := range waysOfFailing {
				if testing.Short() && chance.IntN(5) > 0 {
					continue
				}
				t.Run(strings.Join([]string{rpc, string(when), name}, "-"), func(t *testing.T) {
					t.Parallel()
					h := newHost(t, csitest.All(), func(c *config) {
						c.Timeouts = map[string]string{rpc: "300ms"}
					})
					h.mock.Faults.Set(rpc, when, what, 1)
					h.revive(t)
					d := h.open(t)
					h.twice(t, d)
					if left := h.mock.Faults.Left(); len(left) > 0 {
						t.Errorf("faults that did not come: %v", left)
					}
					h.nothingLeft(t)
				})
			}
		}
	}
}

// TestFaultsOfMore is the same for the calls of a richer life, with snapshots, clones, an expansion and a rollback.
func TestFaultsOfMore(t *testing.T) {
	t.Parallel()
	chance := rand.New(rand.NewPCG(testenv.Seed(t), 0)) //nolint:gosec // chance of a test
	for _, rpc := range []string{callSnapshot, callUnsnapshot, callGroup, callUngroup, callGrow, callGrowNode, callCreate, callDelete} {
		for _, when := range []csitest.When{csitest.Before, csitest.After} {
			for name, what := range waysOfFailing {
				skip := 0
				if rpc == callCreate || rpc == callDelete {
					skip = 1 // the first is that of a volume that is no copy, as in TestFaults
				}
				if testing.Short() && chance.IntN(8) > 0 {
					continue
				}
				t.Run(strings.Join([]string{rpc, string(when), name}, "-"), func(t *testing.T) {
					t.Parallel()
					h := newHost(t, csitest.All(), func(c *config) {
						c.Timeouts = map[string]string{rpc: "300ms"}
					})
					h.mock.Faults.Add(csitest.Fault{RPC: rpc, When: when, What: what, Times: 1, Skip: skip})
					h.revive(t)
					h.goOn(t, 0)
					if left := h.mock.Faults.Left(); len(left) > 0 {
						t.Errorf("faults that did not come: %v", left)
					}
				})
			}
		}
	}
}

// revive starts the CSI driver again whenever it has crashed, until the test ends.
func (h *host) revive(t *testing.T) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if !h.mock.Alive() {
				h.mock.Restart()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// twice makes a volume, has two containers after each other use it, and removes it.
func (h *host) twice(t *testing.T, d *driver) {
	t.Helper()
	target := filepath.Join(h.dir, "mnt")
	if err := os.MkdirAll(target, 0o700); err != nil {
		t.Fatal(err)
	}
	patient(t, "create", func(ctx context.Context) error { return d.Create(ctx, "one", map[string]string{"size": "32m"}) })
	up := func() {
		patient(t, "mount", func(ctx context.Context) error {
			_, err := d.Mount(ctx, "one", target)
			return err
		})
		if is, err := mount.At(target); err != nil || !is {
			t.Fatalf("mounted: %t, %v", is, err)
		}
		if n := len(h.mock.Volumes()); n != 1 {
			t.Errorf("%d volumes, not one", n)
		}
	}
	down := func() {
		patient(t, "unmount", func(ctx context.Context) error { return d.Unmount(ctx, "one", target) })
	}
	up()
	if err := os.WriteFile(target+"/file", []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	down()
	within(t, func() error {
		if v := h.mock.Volumes(); len(v) == 1 && len(v[0].Attached) > 0 {
			return errors.New("it is still attached")
		}
		return nil
	})
	up()
	if got, err := os.ReadFile(target + "/file"); err != nil || string(got) != "data" {
		t.Errorf("%q, %v in the volume", got, err)
	}
	down()
	patient(t, "remove", func(ctx context.Context) error {
		if err := d.Remove(ctx, "one"); !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		return nil
	})
}

// patient does what an engine and its user do: again, when it says that it could not yet.
func patient(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		if try == 5 {
			t.Fatalf("%s, for the fifth time: %v", what, err)
		}
		t.Logf("%s: %v", what, err)
		time.Sleep(50 * time.Millisecond)
	}
}

// within waits until f has nothing to say.
func within(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for range 2000 {
		if err = f(); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error(err)
}
