package volume

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// told is a driver that remembers what options it got.
type told struct {
	*fake
	opts []map[string]string
}

func (d *told) Create(ctx context.Context, name string, opts map[string]string) error {
	d.opts = append(d.opts, opts)
	return d.fake.Create(ctx, name, opts)
}

// The program's own options are kept by it, of new volumes and of those that it knows, and never
// come to the driver.
func TestOwnOptions(t *testing.T) {
	driver := &told{fake: newFake("/")}
	type kept struct {
		Name  string
		Opts  map[string]string
		Known bool
	}
	var got []kept
	var fails error
	h, err := NewHandler(t.Context(), driver, Options{Own: OwnOptions{
		Names: []string{"schedule"},
		Check: func(opts map[string]string) error {
			if opts["schedule"] == "bad" {
				return errdefs.Errorf(errdefs.ErrInvalid, "no such schedule")
			}
			return nil
		},
		Keep: func(_ context.Context, name string, opts map[string]string, known bool) error {
			got = append(got, kept{name, opts, known})
			return fails
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.WithoutCancel(t.Context())) })
	given := map[string]string{"schedule": "nightly", "size": "1g"}
	for _, opts := range []map[string]string{given, nil, {"schedule": ""}} {
		if err := h.Create(t.Context(), "v", opts); err != nil {
			t.Fatal(err)
		}
	}
	want := []kept{
		{"v", map[string]string{"schedule": "nightly"}, false},
		{"v", map[string]string{}, true},
		{"v", map[string]string{"schedule": ""}, true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]map[string]string{{"size": "1g"}, {}, {}}, driver.opts); diff != "" {
		t.Errorf("the driver got (-want +got):\n%s", diff)
	}
	if given["schedule"] != "nightly" {
		t.Error("the caller's options are changed")
	}
	got = nil
	if err := h.Create(t.Context(), "w", map[string]string{"schedule": "bad"}); !errors.Is(err, errdefs.ErrInvalid) || len(got) != 0 {
		t.Errorf("error is %v, kept %v", err, got)
	}
	if _, err := h.Get(t.Context(), "w"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("made in spite of it: %v", err)
	}
	fails = errors.New("disk full")
	if err := h.Create(t.Context(), "w", nil); err == nil || !strings.Contains(err.Error(), `volume "w": made, but its options cannot be kept: disk full`) {
		t.Errorf("error is %v", err)
	}
}
