package projects

import (
	"context"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/pause"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/sdk/volume"
)

// disk is a driver with two volumes. A snapshot of "slow" waits for the gate.
type disk struct {
	gate chan struct{}
	note func(string)
}

func (disk) Create(context.Context, string, map[string]string) error { return nil }

func (disk) Remove(context.Context, string) error { return nil }

func (disk) Mount(context.Context, string, string) (string, error) { return "/", nil }

func (disk) Unmount(context.Context, string, string) error { return nil }

func (disk) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		_ = yield(volume.Info{Name: "fast"}, nil) && yield(volume.Info{Name: "slow"}, nil)
	}
}

func (d disk) CreateSnapshot(_ context.Context, name, _ string, _ map[string]string) error {
	if name == "slow" {
		<-d.gate
	}
	d.note("snapshot of " + name)
	return nil
}

func (disk) Snapshots(context.Context, string) ([]volume.Snapshot, error) { return nil, nil }

func (disk) RemoveSnapshot(context.Context, string, string) error { return nil }

// shop is a service with an engine, on which a container has both volumes and another has none.
func shop(t *testing.T, d volume.Driver, note func(string)) *Service {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmj") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/engine")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	say := func(pattern, text string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })
	}
	say("GET /volumes", `{"Volumes":[{"Name":"fast","Driver":"a:latest"},{"Name":"slow","Driver":"a"}]}`)
	const project, stranger = `{"Id":"1","Names":["/app"],"State":"running","Mounts":[{"Type":"volume","Name":"fast","Driver":"a:latest"},{"Type":"volume","Name":"slow","Driver":"a"}]},
		{"Id":"3","Names":["/old"],"State":"exited","Mounts":[{"Type":"volume","Name":"slow","Driver":"a"}]}`, `{"Id":"2","Names":["/web"],"State":"running","Mounts":[{"Type":"volume","Name":"www","Driver":"a"}]}`
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		text := "[" + project + "," + stranger + "]"
		if r.FormValue("filters") != "" {
			text = "[" + project + "]"
		}
		_, _ = w.Write([]byte(text))
	})
	say("GET /containers/{id}/json", `{"State":{"Running":true,"Paused":true}}`)
	for _, verb := range []string{"pause", "unpause"} {
		mux.HandleFunc("POST /containers/{id}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			note(verb + " " + r.PathValue("id"))
			w.WriteHeader(http.StatusNoContent)
		})
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: mux}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })

	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	h, err := volume.NewHandler(t.Context(), d, volume.Options{Refresh: -1})
	if err != nil {
		t.Fatal(err)
	}
	p := pool.New(t.Context(), pool.Options{Conf: config.Pool{Name: "a"}, Handler: h, Claims: &pool.Claims{}, Log: log})
	t.Cleanup(func() { _ = p.Close(context.WithoutCancel(t.Context())) })
	pools := &pool.Set{}
	pools.Become(pool.Running)
	pools.Put(p)
	hooks := func(_ context.Context, e hook.Event) (func(context.Context) error, error) {
		note("before " + e.Volume)
		return func(context.Context) error { note("after " + e.Volume); return nil }, nil
	}
	pauser := pause.New(t.Context(), dir+"/paused", log)
	t.Cleanup(pauser.Close)
	return New(Options{
		Pools: pools, Snapshots: snapshot.Taker{Hooks: hooks}, Pauser: pauser, Parallel: 1, Log: log,
		Engines: func() []engine.Engine { return engine.There([]string{dir + "/engine"}) },
	})
}

// notes are what happened, in its order.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, text)
}

func (n *notes) order() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.all, ", ")
}

// The containers that use the volumes are paused between the hooks, and no others.
func TestPausedBetweenHooks(t *testing.T) {
	var n notes
	gate := make(chan struct{})
	close(gate)
	for _, still := range []bool{false, true} {
		n.all = nil
		a, err := shop(t, disk{gate, func(string) { n.add("snapshot") }}, n.add).Snapshot(t.Context(), control.ProjectSnapshotRequest{Project: "shop", Pause: still})
		if err != nil || len(a.Snapshots) != 2 || len(a.Errors) > 0 {
			t.Fatalf("made are %+v, %v", a, err)
		}
		want := "before fast, before slow, snapshot, snapshot, after slow, after fast"
		if still {
			want = "before fast, before slow, pause 1, snapshot, snapshot, unpause 1, after slow, after fast"
		}
		if got := n.order(); got != want {
			t.Errorf("it went %s, want %s", got, want)
		}
		if got := slices.Equal(a.Paused, []string{"app"}) && a.PausedFor > 0; got != still {
			t.Errorf("paused were %q for %d", a.Paused, a.PausedFor)
		}
	}
}

// Storage that takes its time keeps no container paused.
func TestPausedNoLonger(t *testing.T) {
	var n notes
	gate := make(chan struct{})
	x := shop(t, disk{gate, n.add}, n.add)
	defer close(gate)
	x.Pauser.Limit = 200 * time.Millisecond
	a, err := x.Snapshot(t.Context(), control.ProjectSnapshotRequest{Project: "shop", Pause: true})
	if err != nil || len(a.Snapshots) != 1 {
		t.Fatalf("made are %+v, %v", a, err)
	}
	if got := n.order(); !strings.Contains(got, "unpause 1, after slow") || strings.Contains(got, "snapshot of slow") {
		t.Errorf("it went %s", got)
	}
	if got := strings.Join(a.Errors, "\n"); !strings.Contains(got, `volume "slow": snapshot: the caller hung up: containers are paused for 200ms at most`) || a.PausedFor < int64(x.Pauser.Limit) {
		t.Errorf("paused for %s, errors are %s", time.Duration(a.PausedFor), got)
	}
}

// Without the engine's answer nothing is made.
func TestNotPaused(t *testing.T) {
	var n notes
	x := shop(t, disk{nil, n.add}, n.add)
	x.Pauser.Close()
	_, err := x.Snapshot(t.Context(), control.ProjectSnapshotRequest{Project: "shop", Pause: true})
	if err == nil || !strings.HasPrefix(err.Error(), `project "shop": daemon: stopping`) {
		t.Errorf("error is %v", err)
	}
	if got, want := n.order(), "before fast, before slow, pause 1, unpause 1, after slow, after fast"; got != want {
		t.Errorf("it went %s, want %s", got, want)
	}
}
