package proof

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestProofIsDue(t *testing.T) {
	cron, err := schedule.Parse("30 3 * * *")
	if err != nil {
		t.Fatal(err)
	}
	v := config.Verify{Name: "x", Cron: cron}
	s := openBook(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.Local) }
	for _, tt := range []struct {
		now  time.Time
		want bool
	}{
		{at(1, 12, 0), false}, // it is new
		{at(2, 3, 29), false},
		{at(2, 3, 30), true},
		{at(2, 3, 31), false},
		{at(5, 12, 0), true}, // missed, more than once
		{at(5, 12, 1), false},
		{at(4, 12, 0), false}, // the clock was set back
		{at(5, 3, 30), true},
	} {
		if due, err := s.due(v, tt.now); err != nil || due != tt.want {
			t.Errorf("at %s it is due: %v, %v", tt.now, due, err)
		}
	}
}

// Who can write to a repository gives names to the backups in it. They lead nowhere.
func TestProofsOfStrangeNames(t *testing.T) {
	dir := t.TempDir()
	s := openBook(t.Context(), dir+"/proofs", slog.New(slog.DiscardHandler))
	for _, names := range [][2]string{{"..", "x"}, {"../../../..", "x"}, {"a", "../../../../x"}, {"a", "b/c"}, {"", "x"}, {"a", ""}, {"a", ".."}} {
		_, err := s.put(control.Proof{Repository: "near", Pool: names[0], Volume: names[1], Backup: "0123"})
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", names, err)
		}
	}
	if _, err := s.put(control.Proof{Repository: "near", Pool: "a", Volume: "x", Backup: "0123"}); err != nil {
		t.Error(err)
	}
	found, err := filepath.Glob(dir + "/proofs/of/*/*/*")
	if top, terr := os.ReadDir(dir); err != nil || terr != nil || len(found) != 1 || len(top) != 1 {
		t.Errorf("written are %q beside %v", found, top)
	}
}
