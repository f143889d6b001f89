package volumes

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// trashing is a driver with a trash that is as it is.
type trashing struct {
	all []volume.Trashed
}

func (trashing) Create(context.Context, string, map[string]string) error { return errdefs.ErrDenied }

func (trashing) Remove(context.Context, string) error { return errdefs.ErrNotFound }

func (trashing) Mount(context.Context, string, string) (string, error) {
	return "", errdefs.ErrNotFound
}

func (trashing) Unmount(context.Context, string, string) error { return errdefs.ErrNotFound }

func (trashing) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(func(volume.Info, error) bool) {}
}

func (d trashing) Trashed(context.Context) ([]volume.Trashed, error) { return slices.Clone(d.all), nil }

func (trashing) Trash(context.Context, string) error { return errdefs.ErrUnsupported }

func (trashing) Restore(context.Context, string, string) error { return errdefs.ErrUnsupported }

func (trashing) Purge(context.Context, string) error { return errdefs.ErrUnsupported }

// What a restore in place that was cut off has in the trash, the old and the new, does not expire.
func TestCutOffDoesNotExpire(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s := fill.Open(t.TempDir(), log)
	d := trashing{all: []volume.Trashed{{ID: "1", Name: "data"}, {ID: "2", Name: "other"}, {ID: "3", Name: "remora-restore-x"}}}
	handler, err := volume.NewHandler(t.Context(), d, volume.Options{Refresh: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = handler.Close(context.WithoutCancel(t.Context())) }()
	f, err := s.Begin("a", "data", fill.Facts{Kind: fill.InPlace, Beside: "remora-restore-x"})
	if err != nil {
		t.Fatal(err)
	}
	ids := func() (all []string) {
		found, err := purgeable{handler, "a", s}.Trashed(t.Context())
		if err != nil {
			t.Error(err)
		}
		for _, x := range found {
			all = append(all, x.ID)
		}
		return all
	}
	if got := ids(); !slices.Equal(got, []string{"1", "2", "3"}) { // what it needs room for may go
		t.Errorf("while it runs: %q", got)
	}
	f.Stopped(pool.ErrStopping)
	if got := ids(); !slices.Equal(got, []string{"2"}) {
		t.Errorf("when it was cut off: %q", got)
	}
	if err := f.End(); err != nil {
		t.Error(err)
	}
	if got := ids(); len(got) != 3 {
		t.Errorf("at the end: %q", got)
	}
}
