package mesh_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/internal/mesh/probe"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
	"github.com/remora-plugins/remora/internal/testenv"
)

// A lab is several hosts on this machine: each is a network namespace with a daemon in it, which is this test's
// binary once more. A namespace is the network between them.

const daemonEnv = "REMORA_MESH_TEST_DAEMON"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "tunnel" {
		if err := tunnel.Serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if path := os.Getenv(daemonEnv); path != "" {
		if err := daemon(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testenv.Main(m))
}

// world is what all hosts of a lab know.
type world struct {
	Records []record.Record
	Blocks  []plan.Block
}

// daemonConfig is what one of them is told.
type daemonConfig struct {
	World, Dir, RunDir string
	Self               record.Host
	Private            tunnel.Key
	Secret             []byte
	NoKernel, FastPath bool
}

// order is what the test has a daemon do, and its answer.
type order struct {
	Verb, Network, Name string
	Addresses           []netip.Prefix
}

type answer struct {
	Err    string
	Link   mesh.Link
	Status mesh.Status
}

// file hands out the records of a file, and notices when it is another.
type file struct {
	path string
	self record.Host
}

func (f file) read() (w world) {
	text, err := os.ReadFile(f.path)
	if err == nil {
		err = json.Unmarshal(text, &w)
	}
	if err != nil {
		panic(err)
	}
	return w
}

func (f file) Self() record.Host { return f.self }

func (f file) Records(kind string) (list []record.Record) {
	for _, r := range f.read().Records {
		if r.Kind == kind {
			list = append(list, r)
		}
	}
	return list
}

func (f file) Watch(...string) (<-chan struct{}, func()) {
	ctx, stop := context.WithCancel(context.Background())
	changed := make(chan struct{}, 1)
	go func() {
		var last os.FileInfo
		for ctx.Err() == nil {
			if now, err := os.Stat(f.path); err == nil && (last == nil || !os.SameFile(now, last)) {
				last = now
				select {
				case changed <- struct{}{}:
				default:
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return changed, stop
}

// daemon is a host's process: it takes orders, a line each.
func daemon(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c daemonConfig
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	f := file{c.World, c.Self}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	m, err := mesh.New(context.Background(), mesh.Config{
		Records: f, Blocks: func() []plan.Block { return f.read().Blocks }, Private: c.Private, Secret: c.Secret, Dir: c.Dir, RunDir: c.RunDir,
		Command: []string{exe, "tunnel"}, NoKernel: c.NoKernel, FastPath: c.FastPath, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	out := json.NewEncoder(os.Stdout)
	for in := json.NewDecoder(os.Stdin); ; {
		var o order
		if err := in.Decode(&o); err != nil {
			stop()
			return errors.Join(<-done, m.Close())
		}
		var a answer
		switch o.Verb {
		case "ensure":
			a.Link, err = m.EnsureNetwork(ctx, o.Network, o.Addresses...)
		case "remove":
			err = m.RemoveNetwork(ctx, o.Network)
		case "port":
			err = m.AttachPort(o.Network, o.Name)
		case "expose":
			var addrs []netip.Addr
			for _, p := range o.Addresses {
				addrs = append(addrs, p.Addr())
			}
			err = m.Expose(ctx, o.Network, addrs...)
		case "status":
			a.Status, err = m.Status(), nil
		case "reset":
			stop()
			err = errors.Join(<-done, m.Reset(context.Background()), m.Close())
		}
		if err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil || o.Verb == "reset" {
			return err
		}
	}
}

var labs atomic.Int32

type lab struct {
	t      *testing.T
	prefix string
	dir    string
	router string
	secret []byte
	hosts  []*host
	world  world
}

type host struct {
	lab     *lab
	name    string
	ns      string
	self    record.Host
	member  record.Member
	config  daemonConfig
	mu      sync.Mutex
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	stderr  bytes.Buffer
	boxes   int
	network map[string]mesh.Link
}

// newLab makes the network between the hosts: a namespace with a bridge, 10.9.0.254/24.
func newLab(t *testing.T) *lab {
	t.Helper()
	testenv.Require(t, testenv.Root)
	testenv.Require(t, testenv.Netns)
	testenv.Require(t, testenv.Nftables)
	l := &lab{t: t, dir: t.TempDir(), secret: []byte("the secret of a cluster of tests"), prefix: fmt.Sprintf("rmt%d-%d-", os.Getpid(), labs.Add(1))}
	l.router = l.namespace("r")
	l.ip(l.router, "link add br0 type bridge")
	l.ip(l.router, "link set br0 up mtu 1500")
	l.ip(l.router, "addr add 10.9.0.254/24 dev br0")
	l.sysctl(l.router, "net.ipv4.ip_forward=1")
	return l
}

func (l *lab) namespace(name string) string {
	l.t.Helper()
	ns := l.prefix + name
	l.run("ip", "netns", "add", ns)
	l.t.Cleanup(func() {
		_ = exec.Command("ip", "-n", ns, "link", "del", plan.Tunnel).Run()
		_ = exec.Command("ip", "netns", "del", ns).Run()
	})
	l.ip(ns, "link set lo up")
	l.sysctl(ns, "net.ipv6.conf.default.accept_dad=0", "net.ipv4.ping_group_range=0 0")
	return ns
}

func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *lab) ip(ns, args string) string {
	l.t.Helper()
	return l.run("ip", append([]string{"-n", ns}, strings.Fields(args)...)...)
}

func (l *lab) in(ns, command string) string {
	l.t.Helper()
	return l.run("ip", append([]string{"netns", "exec", ns}, strings.Fields(command)...)...)
}

func (l *lab) sysctl(ns string, settings ...string) {
	l.t.Helper()
	for _, s := range settings {
		l.run("ip", "netns", "exec", ns, "sysctl", "-qw", s)
	}
}

// lan adds a host on the bridge of the router.
func (l *lab) lan(name, address string) *host {
	h := l.wire(name, address)
	l.ip(l.router, "link set dev "+name+" master br0")
	return h
}

// behind adds a host that has the router between it and the others.
func (l *lab) behind(name, address, gateway string) *host {
	h := l.wire(name, address)
	l.ip(l.router, "addr add "+gateway+" dev "+name)
	l.ip(h.ns, "route add default via "+strings.Split(gateway, "/")[0])
	return h
}

func (l *lab) wire(name, address string) *host {
	l.t.Helper()
	h := &host{lab: l, name: name, ns: l.namespace(name), network: map[string]mesh.Link{}}
	l.ip(l.router, "link add name "+name+" type veth peer name eth0 netns "+h.ns)
	l.ip(l.router, "link set dev "+name+" up")
	l.ip(h.ns, "addr add "+address+" dev eth0")
	l.ip(h.ns, "link set eth0 up")
	seed := bytes.Repeat([]byte(name[:1]), ed25519.SeedSize)
	copy(h.self[:], ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	private := tunnel.Key(seed)
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		l.t.Fatal(err)
	}
	public := [32]byte(key.PublicKey().Bytes())
	addr := netip.MustParsePrefix(address).Addr()
	h.member = record.Member{
		Nickname: name, TunnelKey: &public,
		Control: []netip.AddrPort{netip.AddrPortFrom(addr, 6783)}, Tunnel: []netip.AddrPort{netip.AddrPortFrom(addr, mesh.TunnelPort)},
	}
	h.config = daemonConfig{World: l.dir + "/world", Dir: l.dir + "/" + name, RunDir: l.dir + "/" + name + "/run", Self: h.self, Private: private, Secret: l.secret, NoKernel: true}
	if err := os.MkdirAll(h.config.RunDir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	l.hosts = append(l.hosts, h)
	return h
}

// nat hides a host behind the router, which lets nothing in that the host has not asked for.
func (l *lab) nat(h *host) {
	h.member.Control, h.member.Tunnel = nil, nil
	l.in(l.router, "nft add table ip nat")
	l.in(l.router, "nft add chain ip nat post { type nat hook postrouting priority 100 ; }")
	l.in(l.router, "nft add rule ip nat post iifname "+h.name+" masquerade")
	l.in(l.router, "nft add chain ip nat pass { type filter hook forward priority 0 ; }")
	l.in(l.router, "nft add rule ip nat pass oifname "+h.name+" ct state new drop")
}

// Networks of every lab, with the blocks of the hosts in order.
var (
	blue = record.Network{ID: "b1000000000000b1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.40.0.0/16"), netip.MustParsePrefix("fd40::/64")}}
	red  = record.Network{ID: "ed000000000000ed", Subnets: []netip.Prefix{netip.MustParsePrefix("10.41.0.0/16")}}
)

// tell writes what the hosts know: the members, the networks, and a block for each host and subnet.
func (l *lab) tell(networks []record.Network, more ...record.Record) {
	l.t.Helper()
	var w world
	for i, h := range l.hosts {
		w.Records = append(w.Records, body(l.t, h.self, record.KindMember, "", h.member))
		for _, n := range networks {
			for _, s := range n.Subnets {
				w.Blocks = append(w.Blocks, plan.Block{Network: n.ID, Prefix: nth(s, i), Host: h.self})
			}
		}
	}
	for _, n := range networks {
		w.Records = append(w.Records, body(l.t, l.hosts[0].self, record.KindNetwork, n.ID, n))
	}
	w.Records = append(w.Records, more...)
	text, err := json.Marshal(w)
	if err != nil {
		l.t.Fatal(err)
	}
	l.world = w
	if err := errors.Join(os.WriteFile(l.dir+"/world.new", text, 0o600), os.Rename(l.dir+"/world.new", l.dir+"/world")); err != nil {
		l.t.Fatal(err)
	}
}

func body(t *testing.T, by record.Host, kind, name string, v any) record.Record {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return record.Record{Key: record.Key{Writer: by, Kind: kind, Name: name}, Body: text}
}

// nth is the block of the host with number i: 10.40.i.0/24, or fd40::i:0/112.
func nth(subnet netip.Prefix, i int) netip.Prefix {
	b := subnet.Addr().AsSlice()
	if len(b) == 4 {
		b[2] = byte(i)
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), 24)
	}
	b[13] = byte(i)
	return netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), 112)
}

// start starts the daemons that do not run.
func (l *lab) start() {
	l.t.Helper()
	for _, h := range l.hosts {
		h.start()
	}
}

func (h *host) start() {
	t := h.lab.t
	t.Helper()
	if h.cmd != nil {
		return
	}
	text, err := json.Marshal(h.config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.config.Dir, "config")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", h.ns, exe)
	cmd.Env = append(os.Environ(), daemonEnv+"="+path)
	cmd.Stderr = &h.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if h.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.cmd, h.out = cmd, bufio.NewReader(out)
	t.Cleanup(func() {
		if h.end(); t.Failed() {
			t.Logf("%s said:\n%s", h.name, h.stderr.Bytes())
		}
	})
}

// end ends the daemon as a signal that cannot be caught does.
func (h *host) end() {
	if h.cmd != nil {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
		h.cmd = nil
	}
}

func (h *host) ask(o order) (answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var a answer
	if err := json.NewEncoder(h.in).Encode(o); err != nil {
		return a, fmt.Errorf("%w\n%s", err, h.stderr.Bytes())
	}
	line, err := h.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("%w\n%s", err, h.stderr.Bytes())
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, err
	}
	if a.Err != "" {
		return a, errors.New(a.Err)
	}
	return a, nil
}

func (h *host) must(o order) answer {
	h.lab.t.Helper()
	a, err := h.ask(o)
	if err != nil {
		h.lab.t.Fatalf("%s: %s: %v", h.name, o.Verb, err)
	}
	return a
}

func (h *host) status() mesh.Status { h.lab.t.Helper(); return h.must(order{Verb: "status"}).Status }

// box makes a container of a network on a host and returns its namespace and addresses.
func (h *host) box(n record.Network) box {
	l := h.lab
	l.t.Helper()
	i := slices.Index(l.hosts, h)
	link, ok := h.network[n.ID]
	if !ok {
		link = h.must(order{Verb: "ensure", Network: n.ID, Addresses: bridgeAddresses(n, i)}).Link
		h.network[n.ID] = link
	}
	h.boxes++
	b := box{lab: l, ns: l.namespace(fmt.Sprintf("%s%d", h.name, h.boxes))}
	port := fmt.Sprintf("rmv%d", h.boxes)
	l.ip(h.ns, fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d netns %s", port, link.MTU, link.MTU, b.ns))
	h.must(order{Verb: "port", Network: n.ID, Name: port})
	for _, s := range n.Subnets {
		a := nth(s, i).Addr().Next()
		for range h.boxes {
			a = a.Next()
		}
		b.addrs = append(b.addrs, a)
		l.ip(b.ns, fmt.Sprintf("addr add %s/%d dev eth0", a, s.Bits()))
	}
	l.ip(b.ns, "link set eth0 up")
	// As one that tries to get to where it may not go.
	l.ip(b.ns, fmt.Sprintf("route add default via %s", bridgeAddresses(n, i)[0].Addr()))
	for _, r := range link.Routes {
		l.ip(b.ns, fmt.Sprintf("-6 route add %s via %s dev eth0", r.Destination, r.NextHop))
	}
	return b
}

// bridgeAddresses are the first of the blocks of the host with number i.
func bridgeAddresses(n record.Network, i int) (addrs []netip.Prefix) {
	for _, s := range n.Subnets {
		addrs = append(addrs, netip.PrefixFrom(nth(s, i).Addr().Next(), s.Bits()))
	}
	return addrs
}

type box struct {
	lab   *lab
	ns    string
	addrs []netip.Addr
}

// pings reports whether one of n pings is answered.
func (b box) pings(to netip.Addr, n int) bool {
	b.lab.t.Helper()
	var p *probe.Prober
	var err error
	inside(b.lab.t, b.ns, func() { p, err = probe.New(b.lab.t.Context()) })
	if err != nil {
		b.lab.t.Fatal(err)
	}
	defer p.Close()
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
		_, ok := p.Ping(ctx, to, probe.Least)
		if !ok {
			<-ctx.Done()
		}
		if cancel(); ok {
			return true
		}
	}
	return false
}

// reach fails the test unless each address of the other box answers within some seconds.
func (b box) reach(o box) {
	b.lab.t.Helper()
	for _, a := range o.addrs {
		if !b.pings(a, 40) {
			b.lab.t.Errorf("%s does not reach %s (%s)", b.ns, a, o.ns)
		}
	}
}

// inside does something in a namespace. Sockets that it opens stay there.
func inside(t *testing.T, name string, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	there, err := netns.GetFromName(name)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err) // this thread is of no use any more
		}
	}()
	do()
}

// send sends n copies of a text over TCP from one box to the other and returns how long that took.
func (b box) send(to box, text string, n int) (time.Duration, error) {
	b.lab.t.Helper()
	var l net.Listener
	var c net.Conn
	var lerr, derr error
	addr := to.addrs[0]
	inside(b.lab.t, to.ns, func() { l, lerr = net.Listen("tcp", netip.AddrPortFrom(addr, 4242).String()) })
	if lerr != nil {
		return 0, lerr
	}
	defer l.Close()
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- 0
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		k, _ := io.Copy(io.Discard, c)
		got <- k
	}()
	began := time.Now()
	inside(b.lab.t, b.ns, func() {
		c, derr = net.DialTimeout("tcp", netip.AddrPortFrom(addr, 4242).String(), 10*time.Second)
	})
	if derr != nil {
		return 0, derr
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	for range n {
		if _, err := io.WriteString(c, text); err != nil {
			_ = c.Close()
			return 0, err
		}
	}
	if err := c.Close(); err != nil {
		return 0, err
	}
	if k := <-got; k != int64(n*len(text)) {
		return 0, fmt.Errorf("%d bytes of %d arrived", k, n*len(text))
	}
	return time.Since(began), nil
}

// eventually waits until something holds.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
