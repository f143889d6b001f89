package fill

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func open(t *testing.T, dir string) *Fills {
	t.Helper()
	s := Open(dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	s.Load(t.Context(), "a")
	return s
}

func begin(t *testing.T, s *Fills, name string, facts Facts) *Fill {
	t.Helper()
	f, err := s.Begin("a", name, facts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// While a fill runs nobody else uses its volume, nor the one beside it, and none removes it.
func TestRunningFill(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	f := begin(t, s, "data", Facts{Kind: InPlace, Backup: "0123456789abcdef", Beside: "beside"})
	own := f.Context(t.Context())
	f.Tell(nil)(backup.Progress{Done: 1, Total: 4})
	for _, name := range []string{"data", "beside"} {
		if err := s.MayUse("a")(t.Context(), name); !errors.Is(err, errdefs.ErrInUse) || !strings.Contains(err.Error(), "is being restored from backup 0123456789ab: 25 %") {
			t.Errorf("%s: use: %v", name, err)
		}
		if err := s.MayRemove("a")(t.Context(), name); !errors.Is(err, errdefs.ErrInUse) {
			t.Errorf("%s: removal: %v", name, err)
		}
		if err := errors.Join(s.MayUse("a")(own, name), s.MayRemove("a")(own, name), s.MayUse("b")(t.Context(), name)); err != nil {
			t.Errorf("%s: its own, and in another pool: %v", name, err)
		}
		if got := s.Word("a", name); got != "restoring 25 %" {
			t.Errorf("%s: shown as %q", name, got)
		}
	}
	if _, err := s.Begin("a", "data", Facts{Kind: Over}); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := s.Begin("a", "../data", Facts{Kind: New}); err == nil {
		t.Error("a name that leads elsewhere is taken")
	}
	f.Stopped(nil)
	if err := f.End(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(dir + "/a/*"); len(left) > 0 || s.Word("a", "data")+s.Word("a", "beside") != "" || s.MayUse("a")(t.Context(), "beside") != nil {
		t.Errorf("after the end: %q", left)
	}
}

// The next daemon knows what was cut off, and what became of a file that cannot be read.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for name, kind := range map[string]string{"new": New, "create": Create, "in-place": InPlace, "over": Over, "proof": Proof} {
		begin(t, s, name, Facts{Kind: kind, Repository: "near", Of: "near/x"})
	}
	for _, name := range []string{"torn", ".remora-tmp-X"} { // the second is of a kill in the midst of writing
		if err := os.WriteFile(dir+"/a/"+name, []byte(`{"version":1,"ki`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := open(t, dir)
	for name, want := range map[string]struct {
		text, word string
		remove     bool // whether it may be removed
	}{
		"new":      {"a restore from near/x was cut off, and is being undone", "partial", false},
		"in-place": {"a restore from near/x was cut off, and is being undone", "partial", false},
		"create":   {"is being restored from near/x, which is tried again: it was cut off", "partial", true},
		"over":     {"only partly restored from near/x, as that was cut off: restore it again, or remove it", "partial", true},
		"proof":    {"is for the proof of a backup, and goes by itself", "proof", false},
		"torn":     {"only partly restored from backup : ", "partial", true},
	} {
		err := next.MayUse("a")(t.Context(), name)
		if err == nil || !strings.HasPrefix(err.Error(), want.text) || next.Word("a", name) != want.word {
			t.Errorf("%s: %v, %q", name, err, next.Word("a", name))
		}
		if err := next.MayRemove("a")(t.Context(), name); (err == nil) != want.remove {
			t.Errorf("%s: removal: %v", name, err)
		}
	}
	if files, err := os.ReadDir(dir + "/a"); err != nil || len(files) != 6 || len(next.Left("a")) != 6 {
		t.Errorf("left are %d of %d files, %v", len(next.Left("a")), len(files), err)
	}
	next.Removed("a")(t.Context(), "over")
	if _, err := os.Stat(dir + "/a/over"); !errors.Is(err, os.ErrNotExist) || next.MayUse("a")(t.Context(), "over") != nil {
		t.Errorf("one that was removed is still known: %v", err)
	}
}

// A fill that changes nothing leaves what was known before it.
func TestAbandon(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	f := begin(t, s, "data", Facts{Kind: Over, Of: "near/x"})
	f.Stopped(errors.Join(f.Change(func(facts *Facts) { facts.Error = "no room" })))
	again := begin(t, s, "data", Facts{Kind: Over, Of: "near/y"})
	again.Stopped(again.Abandon())
	for _, s := range []*Fills{s, open(t, dir)} {
		if err := s.MayUse("a")(t.Context(), "data"); err == nil || !strings.Contains(err.Error(), "from near/x: no room") {
			t.Errorf("half a volume is taken for a whole one: %v", err)
		}
	}
	whole := begin(t, s, "other", Facts{Kind: Over})
	whole.Stopped(whole.Abandon())
	if err := s.MayUse("a")(t.Context(), "other"); err != nil {
		t.Errorf("of a whole one: %v", err)
	}
}

// Who asks for what is being made waits for it, and whoever removes it ends it.
func TestAwait(t *testing.T) {
	s := open(t, t.TempDir())
	f := begin(t, s, "data", Facts{Kind: Create, Of: "near/x"})
	if !f.Joins("near/x") || f.Joins("near/y") || f.Waited() {
		t.Error("it is not known what it is for")
	}
	if err := f.Await(t.Context(), time.Millisecond); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "it goes on") {
		t.Errorf("what takes long: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	f.Runs(cancel)
	go func() {
		<-ctx.Done()
		f.Stopped(context.Cause(ctx))
	}()
	s.GiveUp(t.Context(), "a", "none")
	s.GiveUp(t.Context(), "a", "data")
	if err := f.Await(t.Context(), time.Minute); !errors.Is(err, errGivenUp) {
		t.Errorf("given up: %v", err)
	}
	if err := f.Failed(errdefs.ErrUnavailable, true); f.Again() || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Error("tried again at once")
	}
	f.again = time.Now()
	if !f.Again() || f.Again() {
		t.Error("not tried again, or twice at a time")
	}
}

// Only what was seen to be empty is ever emptied.
func TestTakeEmpty(t *testing.T) {
	s := open(t, t.TempDir())
	dir := t.TempDir()
	put := func(name string) {
		if err := errors.Join(os.MkdirAll(dir+"/lost+found", 0o700), os.WriteFile(dir+"/"+name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("precious")
	f := begin(t, s, "data", Facts{Kind: Create})
	if err := f.TakeEmpty(dir); !errors.Is(err, ErrNotOurs) || f.OwnsData() {
		t.Errorf("of somebody's: %v", err)
	}
	if err := os.Remove(dir + "/precious"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.TakeEmpty(dir); err != nil || !f.OwnsData() {
			t.Errorf("of its own: %v", err)
		}
		put("half")
	}
	if err := Clear(dir); err != nil || Empty(dir) != nil {
		t.Errorf("cleared: %v, %v", err, Empty(dir))
	}
	if _, err := os.Stat(dir + "/lost+found"); err != nil {
		t.Error(err)
	}
	made := volume.Volume{}
	made.CreatedAt = time.Now()
	if f.Owns(made) {
		t.Error("a volume that it did not make is its own")
	}
	if err := f.Change(func(facts *Facts) { facts.Made = true }); err != nil || !f.Owns(made) {
		t.Errorf("one that it made is not: %v", err)
	}
	made.CreatedAt = f.Began.Add(-time.Hour)
	if f.Owns(made) {
		t.Error("one that is older is its own")
	}
}
