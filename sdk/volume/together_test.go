package volume

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// grouping is a fake that makes snapshots of several volumes.
type grouping struct{ *fake }

func (g grouping) CreateSnapshots(ctx context.Context, names []string, _ string, _ map[string]string) error {
	return g.call(ctx, "snapshots", strings.Join(names, "+"))
}

// Snapshots of several volumes wait for the calls of each, and those for them.
func TestCreateSnapshots(t *testing.T) {
	f := newFake(t.TempDir(), "a", "b", "c")
	h := newTestHandler(t, grouping{f}, Options{MayUse: func(_ context.Context, name string) error {
		if name == "c" {
			return errdefs.Errorf(errdefs.ErrUnavailable, "it is not whole")
		}
		return nil
	}})
	ctx := t.Context()
	if err := h.CreateSnapshots(ctx, []string{"b", "a", "b"}, "s", nil); err != nil || !slices.Equal(f.calls("snapshots"), []string{"snapshots a+b"}) {
		t.Errorf("%v, calls %q", err, f.calls("snapshots"))
	}
	mustBe(t, "none", h.CreateSnapshots(ctx, nil, "s", nil), errdefs.ErrInvalid)
	mustBe(t, "a wrong name", h.CreateSnapshots(ctx, []string{"a", "../b"}, "s", nil), errdefs.ErrInvalid)
	mustBe(t, "a wrong snapshot", h.CreateSnapshots(ctx, []string{"a", "b"}, "..", nil), errdefs.ErrInvalid)
	err := h.CreateSnapshots(ctx, []string{"a", "c"}, "s", nil)
	if mustBe(t, "one that is not whole", err, errdefs.ErrUnavailable); !strings.Contains(err.Error(), `volume "c": snapshot "s": it is not whole`) {
		t.Error(err)
	}
	mustBe(t, "without", newTestHandler(t, newFake(t.TempDir(), "a"), Options{}).CreateSnapshots(ctx, []string{"a"}, "s", nil), errdefs.ErrUnsupported)

	gate, entered := make(chan struct{}), make(chan struct{}, 2)
	f.setBefore(func(_ context.Context, verb, _ string) error {
		if verb == "snapshots" {
			entered <- struct{}{}
			<-gate
		}
		return nil
	})
	done := make(chan error, 2)
	go func() { done <- h.CreateSnapshots(ctx, []string{"a", "b"}, "s", nil) }()
	<-entered
	go func() { done <- h.Remove(ctx, "b") }()
	time.Sleep(20 * time.Millisecond)
	if all := f.calls("remove"); len(all) > 0 {
		t.Errorf("meanwhile: %q", all)
	}
	close(gate)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if all := f.calls("remove"); len(all) != 1 {
		t.Errorf("calls: %q", all)
	}
}
