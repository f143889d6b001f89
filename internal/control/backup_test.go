package control_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// keeper answers every method about backups with what the test has put into it.
type keeper struct {
	backup control.Backup
	err    error
	got    any
}

func (k *keeper) take(req any) error {
	k.got = req
	return k.err
}

func (k *keeper) Init(_ context.Context, r control.BackupRepository) (control.BackupRepository, error) {
	return control.BackupRepository{Repository: "near", URL: "file:///srv"}, k.take(r)
}

func (k *keeper) Create(_ context.Context, r control.BackupCreateRequest, p func(control.Progress)) (control.Backup, error) {
	p(control.Progress{Object: "data", Done: 1, Total: 2})
	return k.backup, k.take(r)
}

func (k *keeper) List(_ context.Context, r control.BackupListRequest) ([]control.Backup, error) {
	return nil, k.take(r)
}

func (k *keeper) Inspect(_ context.Context, r control.BackupRequest) (control.Backup, error) {
	return k.backup, k.take(r)
}

func (k *keeper) Verify(_ context.Context, r control.BackupRequest, _ func(control.Progress)) (control.BackupVerify, error) {
	return control.BackupVerify{Backups: 1, Bytes: 2, Damaged: []control.BackupDamaged{{ID: "k1", Volume: "data", Files: 3, Error: "torn"}}}, k.take(r)
}

func (k *keeper) Prove(_ context.Context, r control.BackupListRequest, _ func(control.Progress)) (control.BackupProofs, error) {
	return control.BackupProofs{Proofs: []control.Proof{{Volume: r.Name, Seconds: 1.5}}}, k.take(r)
}

func (k *keeper) Remove(_ context.Context, r control.BackupRequest) error { return k.take(r) }

func (k *keeper) Repair(_ context.Context, r control.BackupRepairRequest, _ func(control.Progress)) (control.BackupRepair, error) {
	return control.BackupRepair{Repository: "near", Mended: []string{"x"}, Pieces: 2}, k.take(r)
}

func (k *keeper) Prune(_ context.Context, r control.BackupPruneRequest, _ func(control.Progress)) (control.BackupPrune, error) {
	return control.BackupPrune{Choices: []control.BackupChoice{{Backup: k.backup, Reasons: []string{"last 1"}}}, Warnings: []string{"w"}}, k.take(r)
}

func (k *keeper) Restore(_ context.Context, r control.BackupRestoreRequest, _ func(control.Progress)) (control.BackupRestore, error) {
	return control.BackupRestore{Backup: k.backup, Pool: "fast", Volume: "new"}, k.take(r)
}

func keepServer(k *keeper) *control.Server {
	s := &service{}
	return control.NewServer(control.ServerOptions{Volumes: volumes{s}, Storage: storage{s}, Daemon: daemon{s}, Backups: k})
}

// Scripts depend on every byte of the answers.
func TestBackupAnswers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	k := &keeper{backup: control.Backup{
		ID: "k1", Repository: "near", Host: "h", Pool: "fast", Volume: "data", Kind: "files", Started: at, Ended: at, PointInTime: true,
		Size: 5, Files: 1, Labels: map[string]string{"a": "b"},
	}}
	const backup = `"ID":"k1","Repository":"near","Host":"h","Pool":"fast","Volume":"data","Kind":"files","Started":"2026-01-02T03:04:05Z",` +
		`"Ended":"2026-01-02T03:04:05Z","PointInTime":true,"Size":5,"Files":1,"Labels":{"a":"b"}`
	for _, tt := range []struct {
		method, body string
		got          any
		want         string
	}{
		{"Init", `{"Repository":"near"}`, control.BackupRepository{Repository: "near"}, `{"Repository":"near","URL":"file:///srv"}`},
		{
			"Create", `{"Name":"data","Kind":"block"}`,
			control.BackupCreateRequest{Name: "data", Kind: "block"},
			`{"Progress":{"Object":"data","Done":1,"Total":2}}` + "\n" + `{"Result":{` + backup + `}}`,
		},
		{"List", ``, control.BackupListRequest{}, `{"Backups":[]}`},
		{"Inspect", `{"ID":"k1"}`, control.BackupRequest{ID: "k1"}, `{` + backup + `}`},
		{"Verify", ``, control.BackupRequest{}, `{"Result":{"Backups":1,"Bytes":2,"Damaged":[{"ID":"k1","Volume":"data","Files":3,"Error":"torn"}]}}`},
		{"Remove", `{"ID":"k1"}`, control.BackupRequest{ID: "k1"}, `{}`},
		{
			"Prune", `{"Last":1,"DryRun":true}`,
			control.BackupPruneRequest{Last: 1, DryRun: true},
			`{"Result":{"Choices":[{` + backup + `,"Reasons":["last 1"]}],"Warnings":["w"]}}`,
		},
		{
			"Repair", `{"DryRun":true}`,
			control.BackupRepairRequest{DryRun: true},
			`{"Result":{"Repository":"near","Mended":["x"],"Pieces":2}}`,
		},
		{
			"Restore", `{"ID":"k1","Paths":["x"]}`,
			control.BackupRestoreRequest{ID: "k1", Paths: []string{"x"}},
			`{"Result":{"Backup":{` + backup + `},"Pool":"fast","Volume":"new"}}`,
		},
		{
			"Prove", `{"Name":"data"}`,
			control.BackupListRequest{Name: "data"},
			`{"Result":{"Proofs":[{"Repository":"","Pool":"","Volume":"data","Backup":"","Made":"0001-01-01T00:00:00Z","At":"0001-01-01T00:00:00Z","Seconds":1.5,"Files":0,"Bytes":0}]}}`,
		},
	} {
		w := httptest.NewRecorder()
		keepServer(k).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/Backup."+tt.method, strings.NewReader(tt.body)))
		if diff := cmp.Diff(tt.want+"\n", w.Body.String()); diff != "" || w.Code != 200 {
			t.Errorf("%s: %d (-want +got):\n%s", tt.method, w.Code, diff)
		}
		if diff := cmp.Diff(tt.got, k.got); diff != "" {
			t.Errorf("%s: request (-want +got):\n%s", tt.method, diff)
		}
	}
}

// The client's methods are the server's, with the same errors.
func TestBackupClient(t *testing.T) {
	k := &keeper{backup: control.Backup{ID: "k1"}}
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- keepServer(k).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	b := newClient(t, socket).Backups()
	var told []control.Progress
	progress := func(p control.Progress) { told = append(told, p) }
	all := func() []error {
		ctx := t.Context()
		_, e1 := b.Init(ctx, control.BackupRepository{})
		one, e2 := b.Create(ctx, control.BackupCreateRequest{Name: "data"}, progress)
		_, e3 := b.List(ctx, control.BackupListRequest{})
		_, e4 := b.Inspect(ctx, control.BackupRequest{ID: "k1"})
		v, e5 := b.Verify(ctx, control.BackupRequest{}, progress)
		e6 := b.Remove(ctx, control.BackupRequest{ID: "k1"})
		p, e7 := b.Prune(ctx, control.BackupPruneRequest{Last: 1}, progress)
		r, e8 := b.Restore(ctx, control.BackupRestoreRequest{ID: "k1", To: "new"}, progress)
		o, e10 := b.Prove(ctx, control.BackupListRequest{Name: "data"}, progress)
		if e10 == nil && o.Proofs[0].Volume != "data" {
			t.Errorf("proofs are %+v", o)
		}
		m, e9 := b.Repair(ctx, control.BackupRepairRequest{}, progress)
		if e2 == nil && (m.Pieces != 2 || one.ID != "k1" || v.Backups != 1 || len(p.Choices) != 1 || r.Volume != "new") {
			t.Errorf("answers are %+v, %+v, %+v, %+v", one, v, p, r)
		}
		return []error{e1, e2, e3, e4, e5, e6, e7, e8, e9, e10}
	}
	if err := errors.Join(all()...); err != nil || len(told) != 1 {
		t.Errorf("%v, progress %v", err, told)
	}
	k.err = errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "volume is in use"), "wait")
	for i, err := range all() {
		if !errors.Is(err, errdefs.ErrInUse) || err.Error() != "volume is in use" || len(errdefs.Hints(err)) != 1 {
			t.Errorf("error %d is %v", i, err)
		}
	}
}
