package control_test

import (
	"context"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/control"
)

// projects answers with what the test has put into it.
type projects struct {
	snapshots control.ProjectSnapshots
	backups   control.ProjectBackups
	got       any
}

func (p *projects) Snapshot(_ context.Context, r control.ProjectSnapshotRequest) (control.ProjectSnapshots, error) {
	p.got = r
	return p.snapshots, nil
}

func (p *projects) Backup(_ context.Context, r control.ProjectBackupRequest, tell func(control.Progress)) (control.ProjectBackups, error) {
	p.got = r
	tell(control.Progress{Object: "shop", Done: 1})
	return p.backups, nil
}

func TestProjects(t *testing.T) {
	p := &projects{}
	srv := httptest.NewUnstartedServer(control.NewServer(control.ServerOptions{Volumes: volumes{}, Storage: storage{}, Daemon: daemon{}, Projects: p}))
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	c := control.NewClient(l.Addr().String())
	t.Cleanup(c.Close)
	for range 2 {
		snap := control.ProjectSnapshotRequest{Project: "shop", Name: "n", Labels: map[string]string{"a": "b"}}
		gotSnap, err := c.Projects().Snapshot(t.Context(), snap)
		want := p.snapshots
		if want.Snapshots == nil {
			want.Snapshots = []control.Snapshot{}
		}
		if diff := cmp.Diff(want, gotSnap); diff != "" || err != nil || !cmp.Equal(p.got, snap) {
			t.Errorf("snapshots: %v, %+v\n%s", err, p.got, diff)
		}
		back := control.ProjectBackupRequest{Project: "shop", Repository: "near", Kind: "files", Reread: true}
		told := 0
		gotBack, err := c.Projects().Backup(t.Context(), back, func(control.Progress) { told++ })
		wantBack := p.backups
		if wantBack.Backups == nil {
			wantBack.Backups = []control.Backup{}
		}
		if diff := cmp.Diff(wantBack, gotBack); diff != "" || err != nil || told != 1 || !cmp.Equal(p.got, back) {
			t.Errorf("backups: %v, %d, %+v\n%s", err, told, p.got, diff)
		}
		sum := control.ProjectSum{
			Within: 5, Warnings: []string{"w"}, Errors: []string{"e"},
			Together: []control.Together{{Pool: "a", Volumes: []string{"b", "c"}}}, Alone: []string{"d"},
		}
		p.snapshots = control.ProjectSnapshots{Snapshots: []control.Snapshot{{Pool: "a", Volume: "b", Name: "n"}}, ProjectSum: sum}
		p.backups = control.ProjectBackups{Backups: []control.Backup{{ID: "1"}}, ProjectSum: sum}
	}
}
