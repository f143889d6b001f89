package volume

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// cloudy is a fake whose volumes are attached, imported and worked on.
type cloudy struct {
	*fake
	jobs []Job
}

func (c *cloudy) Attach(ctx context.Context, name string, force bool) error {
	if err := c.call(ctx, "attach", name); err != nil {
		return err
	}
	if !force {
		return errdefs.Errorf(errdefs.ErrInUse, "attached to host b since noon")
	}
	return nil
}

func (c *cloudy) Import(ctx context.Context, ref, name string, dry bool) ([]Imported, error) {
	if err := c.call(ctx, "import", ref); err != nil {
		return nil, err
	}
	if !dry {
		c.mu.Lock()
		c.volumes[name] = true
		c.mu.Unlock()
	}
	return []Imported{{Disk: ref, Name: name, Done: !dry}, {Disk: "other", Problem: "too large"}}, nil
}

func (c *cloudy) Jobs() []Job { return c.jobs }

func TestAttachImportAndJobs(t *testing.T) {
	d := &cloudy{fake: newFake(t.TempDir(), "a"), jobs: []Job{{ID: "1", Kind: "make", Began: time.Unix(1, 0)}}}
	h := newTestHandler(t, d, Options{MountRoot: t.TempDir()})
	ctx := t.Context()
	if err := h.Attach(ctx, "a", false); !errors.Is(err, errdefs.ErrInUse) || err.Error() != `volume "a": attached to host b since noon` {
		t.Errorf("attach: %v", err)
	}
	if err := h.Attach(ctx, "a", true); err != nil {
		t.Errorf("attach by force: %v", err)
	}
	if err := h.Attach(ctx, "../a", true); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("attach of a wrong name: %v", err)
	}
	if all, err := h.Import(ctx, "disk", "b", true); err != nil || len(all) != 2 || all[0].Done {
		t.Errorf("dry import: %+v, %v", all, err)
	}
	if names := listed(t, h); slices.Contains(names, "b") {
		t.Errorf("after a dry import: %q", names)
	}
	if all, err := h.Import(ctx, "disk", "b", false); err != nil || !all[0].Done {
		t.Errorf("import: %+v, %v", all, err)
	}
	if names := listed(t, h); !slices.Contains(names, "b") {
		t.Errorf("after the import: %q", names)
	}
	if _, err := h.Import(ctx, "disk", "../b", false); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("import to a wrong name: %v", err)
	}
	if got := h.Jobs(); len(got) != 1 || got[0].Kind != "make" {
		t.Errorf("jobs are %+v", got)
	}

	plain := newTestHandler(t, newFake(t.TempDir(), "a"), Options{MountRoot: t.TempDir()})
	if err := plain.Attach(ctx, "a", true); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("attach without an Attacher: %v", err)
	}
	if _, err := plain.Import(ctx, "", "", true); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("import without an Importer: %v", err)
	}
	if got := plain.Jobs(); got != nil {
		t.Errorf("jobs without a Worker: %+v", got)
	}
}

func listed(t *testing.T, h *Handler) (names []string) {
	t.Helper()
	for v, err := range h.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, v.Name)
	}
	return names
}
