package control_test

import (
	"context"
	"flag"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/remora-plugins/remora/internal/control"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// service answers every method with what the test has put into it, and keeps the request.
type service struct {
	volume    control.Volume
	list      []control.Volume
	point     string
	status    control.Status
	reload    control.Reload
	reconcile control.Reconcile
	progress  []control.Progress
	usage     control.Usage
	snapshots control.SnapshotList
	changes   []control.Change
	diff      control.Diff
	trash     control.TrashList
	schedules control.ScheduleList
	err       error
	panics    bool

	got any // the last request
}

// volumes, storage and daemon are the sides of a service.
type (
	volumes struct{ s *service }
	storage struct{ s *service }
	daemon  struct{ s *service }
)

func (s *service) take(req any) error {
	if s.panics {
		panic("the test wants it")
	}
	s.got = req
	return s.err
}

func (v volumes) Create(_ context.Context, r control.VolumeCreateRequest) (control.Volume, error) {
	return v.s.volume, v.s.take(r)
}

func (v volumes) List(_ context.Context, r control.VolumeListRequest) ([]control.Volume, error) {
	return v.s.list, v.s.take(r)
}

func (v volumes) Inspect(_ context.Context, r control.VolumeRequest) (control.Volume, error) {
	return v.s.volume, v.s.take(r)
}

func (v volumes) Remove(_ context.Context, r control.VolumeRemoveRequest) error { return v.s.take(r) }

func (v volumes) Mount(_ context.Context, r control.VolumeMountRequest) (string, error) {
	return v.s.point, v.s.take(r)
}

func (v volumes) Unmount(_ context.Context, r control.VolumeMountRequest) error { return v.s.take(r) }

func (v volumes) Path(_ context.Context, r control.VolumeRequest) (string, error) {
	return v.s.point, v.s.take(r)
}

func (t storage) Clone(_ context.Context, r control.VolumeCloneRequest) (control.Volume, error) {
	return t.s.volume, t.s.take(r)
}

func (t storage) Resize(_ context.Context, r control.VolumeResizeRequest) (control.Usage, error) {
	return t.s.usage, t.s.take(r)
}

func (t storage) Rollback(_ context.Context, r control.VolumeRollbackRequest) error {
	return t.s.take(r)
}

func (t storage) Usage(_ context.Context, r control.VolumeRequest, progress func(control.Progress)) (control.Usage, error) {
	for _, p := range t.s.progress {
		progress(p)
	}
	return t.s.usage, t.s.take(r)
}

func (t storage) Protect(_ context.Context, r control.VolumeProtectRequest) error { return t.s.take(r) }

func (t storage) CreateSnapshot(_ context.Context, r control.SnapshotCreateRequest) (control.Snapshot, error) {
	if len(t.s.snapshots.Snapshots) == 0 {
		return control.Snapshot{}, t.s.take(r)
	}
	return t.s.snapshots.Snapshots[0], t.s.take(r)
}

func (t storage) ListSnapshots(_ context.Context, r control.SnapshotListRequest) (control.SnapshotList, error) {
	return t.s.snapshots, t.s.take(r)
}

func (t storage) RemoveSnapshot(_ context.Context, r control.SnapshotRequest) error {
	return t.s.take(r)
}

func (t storage) DiffSnapshot(_ context.Context, r control.SnapshotDiffRequest, each func(control.Change)) (control.Diff, error) {
	for _, c := range t.s.changes {
		each(c)
	}
	return t.s.diff, t.s.take(r)
}

func (t storage) Trash(_ context.Context, r control.TrashListRequest) (control.TrashList, error) {
	return t.s.trash, t.s.take(r)
}

func (t storage) Restore(_ context.Context, r control.TrashRestoreRequest) (control.Volume, error) {
	return t.s.volume, t.s.take(r)
}

func (t storage) Purge(_ context.Context, r control.TrashRequest) error { return t.s.take(r) }

func (t storage) Schedules(context.Context) (control.ScheduleList, error) {
	return t.s.schedules, t.s.take(nil)
}

func (d daemon) Status(context.Context) (control.Status, error) { return d.s.status, d.s.take(nil) }

func (d daemon) Reload(context.Context) (control.Reload, error) { return d.s.reload, d.s.take(nil) }

func (d daemon) Reconcile(_ context.Context, progress func(control.Progress)) (control.Reconcile, error) {
	for _, p := range d.s.progress {
		progress(p)
	}
	return d.s.reconcile, d.s.take(nil)
}

// full is a service whose answers have every field.
func full() *service {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	used, snapshots := int64(4096), 2
	v := control.Volume{
		Pool: "fast", Driver: "dir", Name: "data", CreatedAt: at, Mountpoint: "/srv/fast/data/data", Mounted: true,
		Mounts:  []control.Mount{{ID: "2f73", Count: 2, Since: at.Add(time.Minute)}},
		Status:  map[string]any{"path": "/srv/fast"},
		Options: map[string]string{"mode": "0700"},
		Used:    &used, UsedAt: at.Add(time.Hour), Limit: 8192, Snapshots: &snapshots, Unknown: []string{"Limit"}, Protected: true,
	}
	return &service{
		volume: v,
		list:   []control.Volume{v, {Pool: "remora", Driver: "mem", Name: "cold"}},
		point:  "/srv/fast/data/data",
		status: control.Status{
			Version: "v1.2.3", PID: 42, Started: at, ConfigFile: "/etc/remora/remora.toml", ConfigError: "line 3: no",
			PluginDir: "/run/docker/plugins", RunDir: "/run/remora", StateDir: "/var/lib/remora",
			Pools: []control.Pool{
				{Name: "fast", Driver: "dir", Socket: "/run/docker/plugins/fast.sock", Volumes: 2, Mounted: 1, Reachable: true, Trash: true},
				{Name: "far", Driver: "mem", Socket: "/run/docker/plugins/far.sock", Error: "server does not answer"},
			},
		},
		reload:    control.Reload{Added: []string{"a"}, Changed: []string{"b"}, Removed: []string{"c"}, Schedules: []string{"s"}, NeedRestart: []string{"run_dir"}, Warnings: []string{"w"}},
		reconcile: control.Reconcile{Volumes: 3, Mounts: 1, Changes: []string{"volume \"data\": unmounted"}},
		usage:     control.Usage{Used: 4096, Limit: 8192},
		snapshots: control.SnapshotList{
			Snapshots: []control.Snapshot{{Pool: "fast", Volume: "data", Name: "s1", CreatedAt: at, Labels: map[string]string{"a": "b"}}},
			Errors:    []string{"volume \"cold\": no answer"},
		},
		changes: []control.Change{{Kind: control.Added, Path: "a"}, {Kind: control.Changed, Path: "b/c", What: []string{"size", "mtime"}}},
		diff:    control.Diff{Added: 1, Changed: 1},
		trash: control.TrashList{
			Trashed: []control.Trashed{{Pool: "fast", Name: "data", ID: "18a-2f", RemovedAt: at, Expires: at.Add(72 * time.Hour)}},
			Errors:  []string{"pool \"far\": no answer"},
		},
		schedules: control.ScheduleList{
			Schedules: []control.Schedule{{Name: "nightly", Cron: "@daily", Tasks: []string{"snapshot", "backup to near"}, Volumes: 3, Failed: 1, Last: at, Next: at.Add(24 * time.Hour), Error: "volume \"cold\": no answer", Runs: []control.ScheduleRun{
				{Pool: "remora", Volume: "cold", Task: "backup to near", Running: true, Last: at, Next: at.Add(24 * time.Hour), Error: "volume \"cold\": no answer"},
			}}},
		},
		progress: []control.Progress{{Object: "far", Done: 0, Total: 2}, {Object: "fast", Done: 1}},
	}
}

func newServer(s *service) *control.Server {
	return control.NewServer(control.ServerOptions{
		Volumes: volumes{s}, Storage: storage{s}, Daemon: daemon{s},
		Pages: map[string]http.Handler{"GET /readyz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("not yet\n"))
		})},
	})
}

// serve serves s until the test ends, and returns the socket.
func serve(t *testing.T, s *service) string {
	t.Helper()
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- newServer(s).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return socket
}

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "control.sock")
}

func newClient(t *testing.T, socket string) *control.Client {
	t.Helper()
	c := control.NewClient(socket)
	t.Cleanup(c.Close)
	return c
}
