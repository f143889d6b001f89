package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/engine"
)

// store holds records of two hosts.
type store struct {
	mu      sync.Mutex
	records map[record.Key]record.Record
	writes  int
	failing bool
}

func newStore() *store { return &store{records: map[record.Key]record.Record{}} }

func (s *store) Self() record.Host { return record.Host{1} }

func (s *store) Records(kind string) (all []record.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if r.Kind == kind {
			all = append(all, r)
		}
	}
	return all
}

func (s *store) Put(kind, name string, body any) error { return s.put(s.Self(), kind, name, body) }

func (s *store) put(writer record.Host, kind, name string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing {
		return fmt.Errorf("disk is full")
	}
	k := record.Key{Writer: writer, Kind: kind, Name: name}
	if string(s.records[k].Body) != string(text) {
		s.records[k] = record.Record{Key: k, Body: text}
		s.writes++
	}
	return nil
}

func (s *store) Delete(kind, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing {
		return fmt.Errorf("disk is full")
	}
	delete(s.records, record.Key{Writer: s.Self(), Kind: kind, Name: name})
	return nil
}

func (s *store) keys() (all []string) {
	for _, r := range s.Records(record.KindName) {
		all = append(all, r.Name)
	}
	slices.Sort(all)
	return all
}

// dockerd answers as an engine does whose containers a test sets.
type dockerd struct {
	socket string
	mu     sync.Mutex
	server *http.Server
	run    map[string]string // ID to address in blue
	events []chan string
	slow   string // ID of one that it is busy with
	looks  atomic.Int64
}

func newDockerd(t *testing.T) *dockerd {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmw") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &dockerd{socket: filepath.Join(dir, "docker.sock"), run: map[string]string{}}
	d.start(t)
	t.Cleanup(d.stop)
	return d
}

func (d *dockerd) start(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /networks", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`[{"Id":"n1","Name":"blue","Driver":"remora"},{"Id":"n2","Name":"other","Driver":"bridge"}]`))
	})
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		list := []map[string]string{}
		for id := range d.run {
			list = append(list, map[string]string{"Id": id})
		}
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		d.looks.Add(1)
		id := r.PathValue("id")
		d.mu.Lock()
		address, ok := d.run[id]
		slow := d.slow == id
		d.mu.Unlock()
		if slow {
			<-r.Context().Done()
			return
		}
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = fmt.Fprintf(w, `{"Id":%q,"Name":"/c-%s","State":{"Running":true},"Config":{},"NetworkSettings":{"Networks":{
			"blue":{"NetworkID":"n1","IPAddress":%q},"other":{"NetworkID":"n2","IPAddress":"172.18.0.2"}}}}`, id, id, address)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		if got := r.FormValue("filters"); got != `{"type":["container","network"]}` {
			t.Errorf("filters are %s", got)
		}
		c := make(chan string, 100)
		d.mu.Lock()
		d.events = append(d.events, c)
		d.mu.Unlock()
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case ev := <-c:
				_, _ = w.Write([]byte(ev))
				w.(http.Flusher).Flush()
			}
		}
	})
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	go func(s *http.Server) { _ = s.Serve(l) }(d.server)
}

func (d *dockerd) stop() { _ = d.server.Close() }

func (d *dockerd) set(id, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run[id] = address; address == "" {
		delete(d.run, id)
	}
}

func (d *dockerd) tell(kind, action, id, container string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.events {
		c <- fmt.Sprintf(`{"Type":%q,"Action":%q,"Actor":{"ID":%q,"Attributes":{"container":%q}}}`+"\n", kind, action, id, container)
	}
}

func start(t *testing.T, d *dockerd, s *store) *Watcher {
	t.Helper()
	w := New(Config{Engine: engine.Engine{Socket: d.socket}, Store: s, Log: slog.New(slog.DiscardHandler), Network: OfDriver("remora", func(name string) (string, bool) {
		return "b1", name == "blue"
	})})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func (s *store) become(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("records %q; they are %q", want, s.keys()), func() bool { return slices.Equal(s.keys(), want) })
}

// What lies in the store at the start is made right, as far as it is this engine's.
func TestStart(t *testing.T) {
	d, s := newDockerd(t), newStore()
	d.set("one", "10.32.0.1")
	for _, key := range []string{"docker/gone/b1", "docker/one/old", "podman/other/b1", "hand/printer"} {
		if err := s.Put(record.KindName, key, record.Name{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.put(record.Host{2}, record.KindName, "docker/far/b1", record.Name{}); err != nil {
		t.Fatal(err)
	}
	start(t, d, s)
	s.become(t, "docker/far/b1", "docker/one/b1", "hand/printer", "podman/other/b1")
	var got record.Name
	for _, r := range s.Records(record.KindName) {
		if r.Name == "docker/one/b1" {
			if err := json.Unmarshal(r.Body, &got); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := record.Name{Network: "b1", Names: []string{"c-one"}, Addresses: []netip.Addr{netip.MustParseAddr("10.32.0.1")}, Container: "one"}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestEvents(t *testing.T) {
	d, s := newDockerd(t), newStore()
	w := start(t, d, s)
	eventually(t, "events", w.Up)
	d.set("one", "10.32.0.1")
	d.tell("container", "start", "one", "")
	s.become(t, "docker/one/b1")
	d.set("two", "10.32.0.2")
	d.tell("network", "connect", "n1", "two")
	s.become(t, "docker/one/b1", "docker/two/b1")
	d.set("one", "")
	d.tell("container", "die", "one", "")
	s.become(t, "docker/two/b1")

	// What says nothing about names costs nothing.
	time.Sleep(50 * time.Millisecond)
	before := d.looks.Load()
	for _, action := range []string{"exec_create: sh", "exec_start: sh", "exec_die", "health_status: healthy", "top"} {
		d.tell("container", action, "two", "")
	}
	time.Sleep(100 * time.Millisecond)
	if n := d.looks.Load() - before; n != 0 {
		t.Errorf("%d looks for events that change nothing", n)
	}
}

// A container that the engine is busy with holds up no other.
func TestBusyContainer(t *testing.T) {
	d, s := newDockerd(t), newStore()
	w := start(t, d, s)
	eventually(t, "events", w.Up)
	d.mu.Lock()
	d.slow = "slow"
	d.mu.Unlock()
	for range 3 {
		d.tell("container", "start", "slow", "")
	}
	for i := range 20 {
		id := fmt.Sprintf("c%02d", i)
		d.set(id, fmt.Sprint("10.32.0.", i+1))
		d.tell("container", "start", id, "")
	}
	eventually(t, "20 records", func() bool { return len(s.keys()) == 20 })
}

// While the engine is away the names stay; what happened meanwhile is found.
func TestEngineRestarts(t *testing.T) {
	d, s := newDockerd(t), newStore()
	d.set("one", "10.32.0.1")
	w := start(t, d, s)
	s.become(t, "docker/one/b1")
	eventually(t, "events", w.Up)
	d.stop()
	eventually(t, "no events", func() bool { return !w.Up() })
	d.set("one", "")
	d.set("two", "10.32.0.2")
	time.Sleep(100 * time.Millisecond)
	s.become(t, "docker/one/b1")
	d.start(t)
	s.become(t, "docker/two/b1")
}

// A store that cannot write for a while gets all that it missed.
func TestStoreFails(t *testing.T) {
	d, s := newDockerd(t), newStore()
	d.set("one", "10.32.0.1")
	w := start(t, d, s)
	s.become(t, "docker/one/b1")
	eventually(t, "events", w.Up)
	s.mu.Lock()
	s.failing = true
	s.mu.Unlock()
	d.set("one", "")
	d.set("two", "10.32.0.2")
	d.tell("container", "die", "one", "")
	d.tell("container", "start", "two", "")
	time.Sleep(200 * time.Millisecond)
	s.become(t, "docker/one/b1")
	s.mu.Lock()
	s.failing = false
	s.mu.Unlock()
	s.become(t, "docker/two/b1")
}

// The reader of events takes any number at once, within bounds.
func TestFlood(t *testing.T) {
	w := New(Config{Engine: engine.Engine{Socket: "/none"}, Store: newStore()})
	begun := time.Now()
	for i := range 3 * maxDirty {
		var ev engine.Event
		ev.Type, ev.Action, ev.Actor.ID = "container", "start", fmt.Sprint(i)
		w.event(ev)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("took %s", took)
	}
	if len(w.dirty) > maxDirty || !w.dirty[everybody] {
		t.Errorf("%d to look at, all of them: %t", len(w.dirty), w.dirty[everybody])
	}
}

func TestOfDriver(t *testing.T) {
	ours := OfDriver("remora", func(name string) (string, bool) { return "id-of-" + name, name != "unknown" })
	for _, tt := range []struct {
		driver, name string
		want         string
	}{
		{"remora", "blue", "id-of-blue"}, {"remora:latest", "blue", "id-of-blue"}, {"remora/overlay:1", "blue", ""}, {"bridge", "blue", ""}, {"", "blue", ""}, {"remora", "unknown", ""},
	} {
		id, ok := ours(engine.Network{Driver: tt.driver, Name: tt.name})
		if ok != (tt.want != "") || ok && id != tt.want {
			t.Errorf("%s of %q: %q, %t", tt.name, tt.driver, id, ok)
		}
	}
}

func TestDescribe(t *testing.T) {
	domains := []string{"remora.local", "corp.example"}
	const id = "8dfafdbc3a40aaaabbbbcccc"
	for _, tt := range []struct {
		what string
		c    engine.Attached
		ep   engine.Endpoint
		want string
	}{
		{"plain", engine.Attached{Name: "web", Hostname: "8dfafdbc3a40"}, engine.Endpoint{}, "web 8dfafdbc3a40"},
		{"aliases", engine.Attached{Name: "web"}, engine.Endpoint{Aliases: []string{"WWW", "8dfafdbc3a40", "www.example.org"}, DNSNames: []string{"web", "www"}}, "web www 8dfafdbc3a40 www.example.org"},
		{"hostname", engine.Attached{Name: "web", Hostname: "box"}, engine.Endpoint{}, "web box 8dfafdbc3a40"},
		{"hostname in a domain", engine.Attached{Name: "web", Hostname: "box.corp.example"}, engine.Endpoint{}, "web box 8dfafdbc3a40"},
		{"hostname and domain name", engine.Attached{Name: "web", Hostname: "box", Domain: "remora.local"}, engine.Endpoint{}, "web box 8dfafdbc3a40"},
		{"domain name of others", engine.Attached{Name: "web", Hostname: "box", Domain: "example.org"}, engine.Endpoint{}, "web box 8dfafdbc3a40"},
		{"hostname of others", engine.Attached{Name: "web", Hostname: "www.example.org"}, engine.Endpoint{}, "web www.example.org 8dfafdbc3a40"},
		{"Compose", engine.Attached{Name: "demo-web-1", Labels: map[string]string{composeService: "web", composeProject: "demo", composeOneOff: "False"}}, engine.Endpoint{}, "demo-web-1 web web.demo 8dfafdbc3a40"},
		{"one-off", engine.Attached{Name: "demo-web-run", Labels: map[string]string{composeService: "web", composeProject: "demo", composeOneOff: "True"}}, engine.Endpoint{}, "demo-web-run 8dfafdbc3a40"},
		{"Swarm", engine.Attached{Name: "web.1.abc", Labels: map[string]string{swarmService: "web"}}, engine.Endpoint{}, "web.1.abc web tasks.web 8dfafdbc3a40"},
		{"labels", engine.Attached{Name: "a", Labels: map[string]string{LabelNames: " b.remora.local,,c d, e "}}, engine.Endpoint{}, "a b e 8dfafdbc3a40"},
		{"odd name", engine.Attached{Name: strings.Repeat("x", 64)}, engine.Endpoint{}, "8dfafdbc3a40"},
	} {
		tt.c.ID, tt.ep.IPAddress, tt.ep.GlobalIPv6Address = id, "10.32.0.1", "fd00::1"
		got := describe(tt.c, tt.ep, "b1", domains)
		if diff := cmp.Diff(tt.want, strings.Join(got.Names, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.what, diff)
		}
		if len(got.Addresses) != 2 || got.Network != "b1" || got.Container != id {
			t.Errorf("%s: %+v", tt.what, got)
		}
	}
	for text, want := range map[string]string{"_HTTP._tcp  80,x": "_http._tcp 80", "nonsense": "", strings.Repeat("_http._tcp 80,", 100): ""} {
		if got := describe(engine.Attached{Name: "a", Labels: map[string]string{LabelServices: text}}, engine.Endpoint{}, "b1", domains); got.Service != want {
			t.Errorf("services %.20q are %q", text, got.Service)
		}
	}
}

// FuzzDescribe holds that whatever a container calls itself fits into a record.
func FuzzDescribe(f *testing.F) {
	f.Add("web", "box.remora.local", "alias,www.example.org", "_http._tcp 80")
	f.Fuzz(func(t *testing.T, name, hostname, list, services string) {
		c := engine.Attached{ID: strings.Repeat("0", 64), Name: name, Hostname: hostname, Labels: map[string]string{
			LabelNames: list, LabelServices: services, composeService: name, composeProject: hostname, swarmService: list,
		}}
		body := describe(c, engine.Endpoint{IPAddress: "10.32.0.1", Aliases: strings.Split(list, ",")}, "b1", []string{"remora.local"})
		text, err := json.Marshal(body)
		if err != nil || len(text) > record.MaxBody {
			t.Errorf("%d bytes, %v", len(text), err)
		}
	})
}
