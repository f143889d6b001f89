package projects

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// array is a disk whose storage makes several snapshots by one call, if that is no error.
type array struct {
	disk
	err error
}

func (a array) CreateSnapshots(_ context.Context, names []string, snapshot string, labels map[string]string) error {
	a.note("snapshots " + snapshot + " of " + strings.Join(names, "+") + " for " + labels["why"])
	return a.err
}

// The snapshots of one pool are made by one call where the storage can, and one by one where it cannot.
func TestTogether(t *testing.T) {
	for name, tt := range map[string]struct {
		err        error
		made       int
		moments    string
		want, says string
	}{
		"at_once":    {nil, 2, "[{a [fast slow]}] []", "snapshots s of fast+slow for upgrade", ""},
		"one_by_one": {errdefs.Errorf(errdefs.ErrUnsupported, "no groups"), 2, "[] [fast slow]", "snapshots s of fast+slow for upgrade, snapshot of", ""},
		"neither":    {errdefs.Errorf(errdefs.ErrExists, "there is one"), 0, "[] []", "snapshots s of fast+slow for upgrade", `volume "fast": snapshot "s": there is one|volume "slow": snapshot "s": there is one`},
	} {
		t.Run(name, func(t *testing.T) {
			var n notes
			gate := make(chan struct{})
			close(gate)
			x := shop(t, array{disk{gate, n.add}, tt.err}, func(string) {})
			a, err := x.Snapshot(t.Context(), control.ProjectSnapshotRequest{Project: "shop", Name: "s", Labels: map[string]string{"why": "upgrade"}})
			if err != nil || len(a.Snapshots) != tt.made || strings.Join(a.Errors, "|") != tt.says {
				t.Errorf("made are %+v, %v", a, err)
			}
			if got := fmt.Sprint(a.Together, a.Alone); got != tt.moments {
				t.Errorf("of one moment, and not, are %s, want %s", got, tt.moments)
			}
			got := n.order()
			if !strings.HasPrefix(got, tt.want) || strings.Contains(got, "snapshot of") != strings.HasSuffix(tt.want, "snapshot of") {
				t.Errorf("it went %s, want %s", got, tt.want)
			}
		})
	}
}

// A name of backups is nobody's to give, by one call either.
func TestTogetherUnderABackupsName(t *testing.T) {
	var n notes
	x := shop(t, array{disk: disk{nil, n.add}}, func(string) {})
	a, err := x.Snapshot(t.Context(), control.ProjectSnapshotRequest{Project: "shop", Name: "remora-backup-x"})
	if err != nil || len(a.Snapshots) != 0 || len(a.Errors) != 2 || !strings.Contains(a.Errors[0], "are those of backups") || n.order() != "" {
		t.Errorf("made are %+v, %v; it went %s", a, err, n.order())
	}
}
