package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/cluster/record"
	dockerapi "github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/names"
	"github.com/remora-plugins/remora/internal/names/forward"
	"github.com/remora-plugins/remora/internal/names/server"
	"github.com/remora-plugins/remora/internal/names/watch"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// ledger holds records of this host and of others, in memory.
type ledger struct {
	mu      sync.Mutex
	records map[record.Key]record.Record
	counter uint64
	changed chan struct{}
}

func newLedger() *ledger {
	return &ledger{records: map[record.Key]record.Record{}, changed: make(chan struct{}, 1)}
}

func (l *ledger) Self() record.Host                         { return record.Host{1} }
func (l *ledger) Watch(...string) (<-chan struct{}, func()) { return l.changed, func() {} }

// everyone can be reached.
type everyone struct{}

func (everyone) Reachable(record.Host) bool       { return true }
func (everyone) Watch() (<-chan struct{}, func()) { return nil, func() {} }

func (l *ledger) Records(kind string) (all []record.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.Kind == kind {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b record.Record) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (l *ledger) Put(kind, name string, body any) error { return l.put(l.Self(), kind, name, body) }

func (l *ledger) put(writer record.Host, kind, name string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := record.Key{Writer: writer, Kind: kind, Name: name}
	if string(l.records[key].Body) != string(text) {
		l.counter++
		l.records[key] = record.Record{Key: key, Version: record.Version{Incarnation: 1, Counter: l.counter}, Body: text}
		l.tell()
	}
	return nil
}

func (l *ledger) Delete(kind, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, record.Key{Writer: l.Self(), Kind: kind, Name: name})
	l.tell()
	return nil
}

func (l *ledger) tell() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// named is a host whose containers have names: all the rooms of names, over an engine's network of any driver.
type named struct {
	*ledger
	h     *lab.Host
	zones *names.Zones
	watch *watch.Watcher
}

// startNames watches the engine at a socket of the host. Networks of the driver are the cluster's, by their names.
func startNames(t *testing.T, h *lab.Host, socket, driver string) *named {
	t.Helper()
	n := &named{ledger: newLedger(), h: h}
	noErr(t, n.Put(record.KindNetwork, "blue", record.Network{ID: "b1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/16")}}))
	n.zones = names.New(names.Config{}, n, everyone{})
	n.watch = watch.New(watch.Config{
		Engine: dockerapi.Engine{Socket: h.Path(socket)}, Key: "docker", Store: n, Log: slog.New(slog.DiscardHandler),
		Network: func(e dockerapi.Network) (string, bool) { return "b1", e.Driver == driver && e.Name == "blue" },
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { n.zones.Run(ctx) })
	all.Go(func() { n.watch.Run(ctx) })
	t.Cleanup(func() { cancel(); all.Wait() })
	return n
}

// answer returns the sorted addresses of a name, or "NXDOMAIN", or "?" for one that is for others.
func (n *named) answer(name string) string {
	m := new(dns.Msg)
	if !n.zones.Zone().Answer(m, dns.Question{Name: name + ".", Qtype: dns.TypeA, Qclass: dns.ClassINET}, netip.MustParseAddr("10.32.9.9")) {
		return "?"
	}
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	var all []string
	for _, rr := range m.Answer {
		all = append(all, rr.(*dns.A).A.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// soon waits until a name has an answer.
func (n *named) soon(t *testing.T, name, want string) {
	t.Helper()
	for end := time.Now().Add(lab.Patience); n.answer(name) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			known, err := names.List(n.Records(record.KindName))
			t.Fatalf("%s is %q, want %q; known is %+v, %v", name, n.answer(name), want, known, err)
		}
	}
}

// listenIn has the server listen in the network of a host.
func listenIn(t *testing.T, h *lab.Host, s *server.Server, at string) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(filepath.Dir(h.Path("")) + "/ns/net")
		if err == nil {
			err = errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), ns.Close())
		}
		if err == nil {
			err = s.Listen(netip.MustParseAddrPort(at))
		}
		done <- err
	}()
	noErr(t, <-done)
}

func TestNamesOfContainers(t *testing.T) {
	l := newLab(t, engine...)
	h := l.Host(t, "h1")
	d := h.Dockerd()
	h.MustDocker("network", "create", "-d", "bridge", "--subnet=10.32.0.0/24", "blue")
	h.MustDocker("network", "create", "-d", "bridge", "--subnet=10.99.0.0/24", "other")
	// One that runs before anybody watches.
	h.MustDocker("run", "-d", "--name=early", "--network=blue", "--ip=10.32.0.5", lab.ImageName, "sleep", "1000")
	n := startNames(t, h, "/run/docker.sock", "bridge")
	noErr(t, n.Put(record.KindName, "docker/gone/b1", record.Name{Network: "b1", Names: []string{"stale"}, Addresses: []netip.Addr{netip.MustParseAddr("10.32.0.99")}}))
	noErr(t, n.Put(record.KindName, "hand/printer", record.Name{Names: []string{"printer"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.5")}}))
	noErr(t, n.put(record.Host{2}, record.KindName, "docker/far/b1", record.Name{Network: "b1", Names: []string{"far"}, Addresses: []netip.Addr{netip.MustParseAddr("10.32.7.7")}}))
	n.watch.Resync()
	n.soon(t, "early", "10.32.0.5")
	n.soon(t, "stale.remora.local", "NXDOMAIN")
	n.soon(t, "far", "10.32.7.7")
	n.soon(t, "printer", "192.0.2.5")

	id := h.MustDocker("run", "-d", "--name=Nyc", "--hostname=box.remora.local", "--network=blue", "--ip=10.32.0.6", "--network-alias=city", "--network-alias=web",
		"--label=com.docker.compose.service=shop", "--label=com.docker.compose.project=demo", "--label=remora.dns.names=extra, more.names", "--label=remora.dns.services=_http._tcp 80",
		lab.ImageName, "sleep", "1000")
	begun := time.Now()
	n.soon(t, "nyc", "10.32.0.6")
	t.Logf("answered %s after docker run has returned", time.Since(begun))
	for _, name := range []string{"nyc.remora.local", "box", "city", "web", "shop", "shop.demo", "extra", "more.names", id[:12]} {
		is(t, name, n.answer(name), "10.32.0.6")
	}
	h.MustDocker("run", "-d", "--name=lon", "--network=blue", "--ip=10.32.0.7", "--network-alias=web", "--hostname=www.example.org", lab.ImageName, "sleep", "1000")
	n.soon(t, "lon", "10.32.0.7")
	is(t, "web", n.answer("web"), "10.32.0.6 10.32.0.7")
	is(t, "a hostname of the world's, in this network", n.answer("www.example.org"), "10.32.0.7")
	m := new(dns.Msg)
	n.zones.Zone().Answer(m, dns.Question{Name: "_http._tcp.nyc.", Qtype: dns.TypeSRV, Qclass: dns.ClassINET}, netip.MustParseAddr("10.32.9.9"))
	if len(m.Answer) != 1 || m.Answer[0].(*dns.SRV).Target != "nyc.remora.local." {
		t.Errorf("services: %s", m)
	}

	h.MustDocker("rename", "Nyc", "paris")
	n.soon(t, "paris", "10.32.0.6")
	n.soon(t, "nyc", "NXDOMAIN")
	h.MustDocker("kill", "lon")
	n.soon(t, "lon", "NXDOMAIN")
	is(t, "web", n.answer("web"), "10.32.0.6")
	h.MustDocker("start", "lon")
	n.soon(t, "lon", "10.32.0.7")
	h.MustDocker("stop", "-t", "0", "lon")
	begun = time.Now()
	n.soon(t, "web", "10.32.0.6")
	t.Logf("withdrawn %s after docker stop has returned", time.Since(begun))

	// Networks come and go while a container runs.
	h.MustDocker("run", "-d", "--name=rio", "--network=other", lab.ImageName, "sleep", "1000")
	h.MustDocker("network", "connect", "--alias=sea", "--ip=10.32.0.8", "blue", "rio")
	n.soon(t, "sea", "10.32.0.8")
	n.soon(t, "rio", "10.32.0.8")
	h.MustDocker("network", "disconnect", "blue", "rio")
	n.soon(t, "rio", "NXDOMAIN")

	// The engine ends at once, and a container with it: names stay meanwhile, and are right afterwards.
	is(t, "the engine is watched", n.watch.Up(), true)
	h.KillEngine(d)
	eventually(t, 10e9, func() bool { return !n.watch.Up() })
	is(t, "paris without the engine", n.answer("paris"), "10.32.0.6")
	h.Dockerd()
	n.soon(t, "paris", "NXDOMAIN") // it has no live-restore
	h.MustDocker("start", "paris")
	n.soon(t, "paris", "10.32.0.6")
	h.MustDocker("rm", "-f", "paris", "rio", "lon", "early")
	n.soon(t, "paris", "NXDOMAIN")
	n.soon(t, "early", "NXDOMAIN")
	is(t, "records", len(n.Records(record.KindName)), 2)
}

// TestNamesInContainers asks from inside containers, through the engine's own resolver: bare names and full ones, those of
// other hosts, those of the world.
func TestNamesInContainers(t *testing.T) {
	l := newLab(t, engine...)
	h := l.Host(t, "h1")
	h.Dockerd()
	h.MustDocker("network", "create", "-d", "bridge", "--subnet=10.32.0.0/24", "--gateway=10.32.0.1", "blue")
	n := startNames(t, h, "/run/docker.sock", "bridge")
	noErr(t, n.put(record.Host{2}, record.KindName, "docker/far/b1", record.Name{Network: "b1", Names: []string{"far"}, Addresses: []netip.Addr{netip.MustParseAddr("10.32.7.7")}}))

	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	noErr(t, err)
	var mu sync.Mutex
	var outside []string
	up := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		mu.Lock()
		outside = append(outside, m.Question[0].Name)
		mu.Unlock()
		r := new(dns.Msg).SetRcode(m, dns.RcodeNameError)
		if m.Question[0].Name == "www.example.org." {
			r.Rcode = dns.RcodeSuccess
			if m.Question[0].Qtype == dns.TypeA {
				r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)}}
			}
		}
		_ = w.WriteMsg(r)
	})}
	go func() { _ = up.ActivateAndServe() }()
	t.Cleanup(func() { _ = up.Shutdown() })
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	noErr(t, os.WriteFile(conf, []byte("nameserver 127.0.0.1\n"), 0o600))
	f := forward.New(t.Context(), forward.Config{ResolvConf: conf, Port: netip.MustParseAddrPort(pc.LocalAddr().String()).Port()})
	t.Cleanup(f.Close)
	s := server.New(t.Context(), server.Config{Zone: n.zones.Zone, Forward: f, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { _ = s.Close() })
	listenIn(t, h, s, "10.32.0.1:53")

	args := append([]string{"run", "-d", "--name=asker", "--network=blue"}, names.DNSArgs([]netip.Addr{netip.MustParseAddr("10.32.0.1")}, names.Search("remora.local", nil))...)
	h.MustDocker(append(args, lab.ImageName, "sleep", "1000")...)
	h.MustDocker("run", "-d", "--name=near", "--network=blue", "--ip=10.32.0.6", lab.ImageName, "sleep", "1000")
	n.soon(t, "near", "10.32.0.6")
	for _, tt := range []struct{ name, want string }{
		{"near", "10.32.0.6"}, {"near.remora.local", "10.32.0.6"}, {"far", "10.32.7.7"}, {"far.remora.local", "10.32.7.7"}, {"www.example.org", "192.0.2.1"},
	} {
		// busybox's ping looks a name up with getaddrinfo, A and AAAA in one go.
		out, _ := h.Docker("exec", "asker", "busybox", "ping", "-c", "1", "-W", "1", tt.name)
		want(t, out, "("+tt.want+")")
	}
	var took time.Duration
	for range 3 { // a machine may be slow once; a resolver that waits for an answer is so each time
		begun := time.Now()
		if out, err := h.Docker("exec", "asker", "busybox", "ping", "-c", "1", "-W", "1", "nobody"); err == nil {
			t.Fatalf("a name that nobody has: %q", out)
		}
		if took = time.Since(begun); took < 3*time.Second {
			break
		}
	}
	if took > 3*time.Second {
		t.Errorf("that nobody has a name is told after %s", took)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range outside {
		if name != "www.example.org." && name != "nobody." && strings.Count(name, ".") != 2 {
			t.Errorf("%s was asked outside", name)
		}
	}
	if !slices.Contains(outside, "nobody.") {
		t.Errorf("asked outside: %q", outside)
	}
}

// TestNamesOfPodman has the watcher read podman's API, which is Docker's with differences.
func TestNamesOfPodman(t *testing.T) {
	l := newLab(t, testenv.Podman)
	h := l.Host(t, "h1")
	pod := podman(t, h)
	pod("import", "-q", l.Image, lab.ImageName)
	pod("network", "create", "--subnet=10.32.0.0/24", "blue")
	p := h.Start([]string{"PODMAN_IGNORE_CGROUPSV1_WARNING=1"}, "podman", "--root=/var/lib/docker/podman", "--runroot=/run/podman", "--storage-driver=vfs",
		"system", "service", "--time=0", "unix:///run/podman.sock")
	h.Wait(p, 30*time.Second, "podman", func() error {
		_, err := os.Stat(h.Path("/run/podman.sock"))
		return err
	})
	n := startNames(t, h, "/run/podman.sock", "bridge")
	pod("run", "-d", "--name=nyc", "--network=blue", "--ip=10.32.0.6", "--network-alias=city", "--hostname=box", lab.ImageName, "sleep", "1000")
	n.soon(t, "nyc", "10.32.0.6")
	n.soon(t, "city", "10.32.0.6")
	n.soon(t, "box", "10.32.0.6")
	pod("kill", "nyc")
	n.soon(t, "nyc", "NXDOMAIN")
	pod("start", "nyc")
	n.soon(t, "nyc", "10.32.0.6")
	pod("rm", "-f", "-t", "0", "nyc")
	n.soon(t, "nyc", "NXDOMAIN")
	is(t, "records", len(n.Records(record.KindName)), 0)
}
