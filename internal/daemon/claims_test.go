package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestClaims(t *testing.T) {
	names := map[use]string{looking: "looking", backingUp: "backing up", changing: "changing"}
	for _, tt := range []struct {
		first, second use
		ok            bool
	}{
		{looking, looking, true},
		{looking, backingUp, true},
		{backingUp, looking, true},
		{backingUp, backingUp, false},
		{looking, changing, false},
		{changing, looking, false},
		{backingUp, changing, false},
		{changing, backingUp, false},
		{changing, changing, false},
	} {
		t.Run(names[tt.first]+" and "+names[tt.second], func(t *testing.T) {
			var c claims
			own, release, err := c.take(t.Context(), "a", "db", tt.first, "the first")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.check(own, "a", "db", tt.second); err != nil {
				t.Errorf("the holder is kept out by himself: %v", err)
			}
			for _, other := range [][2]string{{"a", "web"}, {"b", "db"}} {
				if err := c.check(t.Context(), other[0], other[1], changing); err != nil {
					t.Errorf("%v is kept out: %v", other, err)
				}
			}
			_, again, err := c.take(t.Context(), "a", "db", tt.second, "the second")
			if tt.ok != (err == nil) {
				t.Fatalf("error is %v", err)
			}
			if err == nil {
				again()
			} else if !errors.Is(err, errdefs.ErrInUse) || !errors.Is(err, schedule.ErrBusy) || !strings.HasPrefix(err.Error(), `volume "db": busy: the first, since `) {
				t.Errorf("error is %v", err)
			}
			release()
			release() // once more does nothing
			if err := c.check(t.Context(), "a", "db", changing); err != nil || len(c.held) != 0 {
				t.Errorf("after the end: %v, %v", err, c.held)
			}
		})
	}
}

// Every verb claims what it works on, and is kept out by the claims of others.
func TestBusyVolume(t *testing.T) {
	notShort(t)
	driver, copying := copies(t)
	h := newHost(t, copiesPool)
	write(t, h.dir+"/password", "secret")
	d, p := h.assemble(copying)
	ctx := t.Context()
	b, st := backups{d}, storage{volumes{d}}
	_, err := b.Init(ctx, control.BackupRepository{})
	h.must(err)
	h.must(p.handler.Create(ctx, "data", nil))
	quiet := func(control.Progress) {}
	var during error
	driver.opened = func() error {
		during = d.claims.check(ctx, "copies", "data", backingUp)
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
			_, err := scheduled{p, d}.Take(ctx, schedule.Task{Repository: "near"}, "nightly", "data")
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
		"removal": func() error { return p.handler.Remove(ctx, "data") },
		"purge":   func() error { return p.handler.Destroy(ctx, "data") },
	}
	looks := map[string]func() error{
		"snapshot": func() error {
			_, err := st.CreateSnapshot(ctx, control.SnapshotCreateRequest{Volume: "data", Name: "beside"})
			return err
		},
		"scheduled snapshot": func() error {
			_, err := scheduled{p, d}.Take(ctx, schedule.Task{}, "nightly", "data")
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
	for by, u := range map[string]use{`backup to "near"`: backingUp, "restore of backup 8d7a": changing} {
		_, release, err := d.claims.take(ctx, "copies", "data", u, by)
		h.must(err)
		for what, do := range verbs {
			keptOut(what, do, by, true)
		}
		for what, do := range looks {
			keptOut(what, do, by, u == changing)
		}
		release()
	}
	if len(d.claims.held) != 0 {
		t.Errorf("claims that are left: %v", d.claims.held)
	}
	h.must(p.handler.Remove(ctx, "data"))
	h.must(p.close(ctx))
}
