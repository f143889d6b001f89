package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Every verb claims what it works on, and is kept out by the claims of others.
func TestBusyVolume(t *testing.T) {
	notShort(t)
	driver, copying := copies(t)
	h := newHost(t, copiesPool)
	write(t, h.dir+"/password", "secret")
	d, p := h.assemble(copying)
	ctx := t.Context()
	b, st := d.archive(), d.storage()
	_, err := b.Init(ctx, control.BackupRepository{})
	h.must(err)
	h.must(p.Handler.Create(ctx, "data", nil))
	quiet := func(control.Progress) {}
	var during error
	driver.opened = func() error {
		during = d.claims.Check(ctx, "copies", "data", pool.BackingUp)
		return nil
	}
	one, err := b.Create(ctx, control.BackupCreateRequest{Name: "data"}, quiet)
	h.must(err)
	if !errors.Is(during, schedule.ErrBusy) || !strings.HasPrefix(during.Error(), `busy: backup to "near", since `) {
		t.Errorf("during the backup: %v", during)
	}
	verbs := map[string]func() error{
		"backup": func() error {
			_, err := b.Create(ctx, control.BackupCreateRequest{Name: "data"}, quiet)
			return err
		},
		"scheduled backup": func() error {
			_, err := d.schedules.In(p).Take(ctx, schedule.Task{Repository: "near"}, "nightly", "data")
			return err
		},
		"restore": func() error {
			_, err := b.Restore(ctx, control.BackupRestoreRequest{ID: one.ID}, quiet)
			return err
		},
		"rollback": func() error {
			return st.Rollback(ctx, control.VolumeRollbackRequest{Name: "data", Snapshot: "x"})
		},
		"clone to it": func() error {
			_, err := st.Clone(ctx, control.VolumeCloneRequest{Name: "data", From: "other"})
			return err
		},
		"removal": func() error { return p.Handler.Remove(ctx, "data") },
		"purge":   func() error { return p.Handler.Destroy(ctx, "data") },
	}
	looks := map[string]func() error{
		"snapshot": func() error {
			_, err := st.CreateSnapshot(ctx, control.SnapshotCreateRequest{Volume: "data", Name: "beside"})
			return err
		},
		"scheduled snapshot": func() error {
			_, err := d.schedules.In(p).Take(ctx, schedule.Task{}, "nightly", "data")
			return err
		},
		"clone of it": func() error {
			_, err := st.Clone(ctx, control.VolumeCloneRequest{Name: "new", From: "data"})
			return err
		},
	}
	keptOut := func(what string, do func() error, by string, want bool) {
		t.Helper()
		err := do()
		if got := errors.Is(err, errdefs.ErrInUse) && strings.Contains(err.Error(), `volume "data": busy: `+by+", since "); got != want {
			t.Errorf("%s beside %s: error is %v", what, by, err)
		}
	}
	for by, u := range map[string]pool.Use{`backup to "near"`: pool.BackingUp, "restore of backup 8d7a": pool.Changing} {
		_, release, err := d.claims.Take(ctx, "copies", "data", u, by)
		h.must(err)
		for what, do := range verbs {
			keptOut(what, do, by, true)
		}
		for what, do := range looks {
			keptOut(what, do, by, u == pool.Changing)
		}
		release()
	}
	h.must(p.Handler.Remove(ctx, "data"))
	h.must(p.Close(ctx))
}
