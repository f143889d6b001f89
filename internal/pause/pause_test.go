package pause

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// host is an engine with containers, as far as pausing goes.
type host struct {
	t    *testing.T
	dir  string
	mu   sync.Mutex
	is   map[string]string // running, paused or exited
	deaf map[string]bool   // what is refused of a container, such as "pause web"
	seen []string          // how many pauses were written down at each call that pauses
	s    *http.Server
}

func newHost(t *testing.T, is map[string]string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmp") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &host{t: t, dir: dir, is: is, deaf: map[string]bool{}}
	h.serve()
	t.Cleanup(h.close)
	return h
}

func (h *host) socket() string { return h.dir + "/engine" }

func (h *host) serve() {
	l, err := net.Listen("unix", h.socket())
	if err != nil {
		h.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		switch is := h.is[r.PathValue("id")]; is {
		case "":
			http.Error(w, "no such container", http.StatusNotFound)
		default:
			_, _ = fmt.Fprintf(w, `{"State":{"Running":%v,"Paused":%v}}`, is != "exited", is == "paused")
		}
	})
	change := func(verb, from, to string) {
		mux.HandleFunc("POST /containers/{id}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			h.mu.Lock()
			defer h.mu.Unlock()
			id := r.PathValue("id")
			if verb == "pause" {
				h.seen = append(h.seen, fmt.Sprint(len(h.left())))
			}
			if h.is[id] != from || h.deaf[verb+" "+id] {
				http.Error(w, "it cannot be", http.StatusInternalServerError)
				return
			}
			h.is[id] = to
			w.WriteHeader(http.StatusNoContent)
		})
	}
	change("pause", "running", "paused")
	change("unpause", "paused", "running")
	h.s = &http.Server{ReadHeaderTimeout: time.Second, Handler: mux}
	go func() { _ = h.s.Serve(l) }()
}

func (h *host) close() { _ = h.s.Close() }

// left are the pauses that are written down.
func (h *host) left() []string {
	all, _ := filepath.Glob(h.dir + "/paused/*")
	return all
}

func (h *host) states() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for id, is := range h.is {
		all = append(all, id+" "+is)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (h *host) refuse(what string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf[what] = on
}

func (h *host) those(ids ...string) (all []Container) {
	for _, id := range ids {
		all = append(all, Container{h.socket(), id, id})
	}
	return all
}

func (h *host) pauser() *Pauser {
	p := New(h.t.Context(), h.dir+"/paused", slog.New(slog.NewTextHandler(h.t.Output(), nil)))
	p.Again = 20 * time.Millisecond
	h.t.Cleanup(p.Close)
	return p
}

func (h *host) await(want string) {
	h.t.Helper()
	for end := time.Now().Add(10 * time.Second); h.states() != want || len(h.left()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("they are %s, want %s; left are %q", h.states(), want, h.left())
		}
	}
}

// What was paused runs on at the end, and nothing else does.
func TestPause(t *testing.T) {
	h := newHost(t, map[string]string{"db": "running", "web": "running", "old": "exited", "held": "paused", "other": "running"})
	p := h.pauser()
	held, err := p.Pause(t.Context(), h.those("db", "web", "old", "held", "gone"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := h.states(), "db paused, held paused, old exited, other running, web paused"; got != want {
		t.Errorf("they are %s", got)
	}
	if got := strings.Join(held.Names(), " "); got != "db web" || held.Until().Before(time.Now()) {
		t.Errorf("held are %s until %s", got, held.Until())
	}
	if slices.Contains(h.seen, "0") || len(h.left()) != 1 {
		t.Errorf("written down before each: %q, now %q", h.seen, h.left())
	}
	for range 2 {
		if err := held.End(); err != nil {
			t.Error(err)
		}
	}
	if held.Late() || held.Took() == 0 {
		t.Errorf("late: %v after %s", held.Late(), held.Took())
	}
	h.await("db running, held paused, old exited, other running, web running")
	none, err := p.Pause(t.Context(), nil)
	if err != nil || none.End() != nil || len(none.Names()) > 0 || !none.Until().IsZero() {
		t.Errorf("of nothing: %+v, %v", none, err)
	}
}

// Where one cannot be paused none is.
func TestPauseFails(t *testing.T) {
	h := newHost(t, map[string]string{"db": "running", "web": "running"})
	h.refuse("pause web", true)
	_, err := h.pauser().Pause(t.Context(), h.those("db", "web"))
	if err == nil || !strings.Contains(err.Error(), `container "web": cannot be paused: engine at `) {
		t.Errorf("error is %v", err)
	}
	h.await("db running, web running")
	held, err := h.pauser().Pause(t.Context(), []Container{{h.dir + "/none", "x", "x"}})
	if held != nil || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("without an engine: %v, %v", held, err)
	}
}

// Nothing is paused for longer than the limit, though nobody calls End.
func TestLimit(t *testing.T) {
	h := newHost(t, map[string]string{"db": "running"})
	p := h.pauser()
	p.Limit = 100 * time.Millisecond
	held, err := p.Pause(t.Context(), h.those("db"))
	if err != nil {
		t.Fatal(err)
	}
	h.await("db running")
	if !held.Late() {
		t.Error("it is not said that it was over")
	}
	if err := held.End(); err != nil {
		t.Error(err)
	}
}

// An engine that does not let one run on is asked again until it does.
func TestEndFails(t *testing.T) {
	h := newHost(t, map[string]string{"db": "running", "web": "running"})
	held, err := h.pauser().Pause(t.Context(), h.those("db", "web"))
	if err != nil {
		t.Fatal(err)
	}
	h.refuse("unpause db", true)
	err = held.End()
	if err == nil || !strings.Contains(err.Error(), `container "db": is still paused, and that is tried again: `) || !slices.Contains(errdefs.Hints(err), "docker unpause db") {
		t.Errorf("error is %v, %q", err, errdefs.Hints(err))
	}
	if got := h.states(); got != "db paused, web running" || len(h.left()) != 1 {
		t.Errorf("they are %s, left %q", got, h.left())
	}
	h.refuse("unpause db", false)
	h.await("db running, web running")
}

// What a daemon had paused that was killed runs on with the next, as soon as there is an engine.
func TestRecover(t *testing.T) {
	h := newHost(t, map[string]string{"db": "running", "held": "paused"})
	dead := h.pauser()
	if _, err := dead.Pause(t.Context(), h.those("db", "held")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.dir+"/paused/.remora-tmp-1", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.close()
	p := h.pauser()
	p.Recover(t.Context())
	time.Sleep(5 * p.Again)
	if got := h.states(); got != "db paused, held paused" || len(h.left()) != 1 {
		t.Fatalf("they are %s, left %q", got, h.left())
	}
	h.serve()
	// "held" was to be paused too, and was paused already when it came to that: nobody knows any more.
	h.await("db running, held running")
}

// A stop has all run on, and lets nothing be paused any more.
func TestClose(t *testing.T) {
	h := newHost(t, map[string]string{"db": "running"})
	p := h.pauser()
	if _, err := p.Pause(t.Context(), h.those("db")); err != nil {
		t.Fatal(err)
	}
	p.Close()
	h.await("db running")
	if _, err := p.Pause(t.Context(), h.those("db")); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("after that: %v", err)
	}
	h.await("db running")
}
