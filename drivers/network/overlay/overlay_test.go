package overlay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
	"github.com/remora-plugins/remora/sdk/network/networktest"
)

const apartEnv = "REMORA_TEST_OVERLAY_APART"

// TestMain runs the tests in a process with a network namespace of its own.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(apartEnv) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.CommandContext(context.Background(), os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), apartEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); cmd.ProcessState == nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// world is one host of a cluster: it knows a network for each subnet, and makes real bridges.
type world struct {
	t  *testing.T
	mu sync.Mutex
	// unknown are subnets that no network has.
	unknown map[netip.Prefix]bool
	chosen  map[string]catalog.Choices
	refuse  error
}

func newWorld(t *testing.T) *world {
	return &world{t: t, unknown: map[netip.Prefix]bool{}, chosen: map[string]catalog.Choices{}}
}

func (w *world) Lookup(p network.Pool) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Prefix.Bits() == 0 || w.unknown[p.Prefix] {
		return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "subnet %s: of no network of the cluster", p.Prefix), "--ipam-driver remora")
	}
	return strings.NewReplacer(".", "", ":", "", "/", "").Replace(p.Prefix.Masked().String()), nil
}

func (w *world) Configure(_ context.Context, id string, c catalog.Choices) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chosen[id] = c
	return w.refuse
}

func bridgeName(id string) string { return "rm-" + id[:min(len(id), 8)] }

func (w *world) EnsureNetwork(_ context.Context, id string, addresses ...netip.Prefix) (catalog.Bridge, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := catalog.Bridge{Name: bridgeName(id), MTU: 1380}
	l, err := netlink.LinkByName(b.Name)
	if err != nil {
		a := netlink.NewLinkAttrs()
		a.Name = b.Name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: a}); err != nil {
			return b, err
		}
		if l, err = netlink.LinkByName(b.Name); err != nil {
			return b, err
		}
	}
	for _, p := range addresses {
		n := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: n}); err != nil {
			return b, err
		}
		if p.Addr().Is6() {
			b.Routes = append(b.Routes, network.Route{Destination: p.Masked(), NextHop: netip.MustParseAddr("fe80::1")})
		}
	}
	return b, netlink.LinkSetUp(l)
}

func (w *world) RemoveNetwork(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return removeLink(bridgeName(id))
}

func (w *world) AttachPort(id, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, err := netlink.LinkByName(bridgeName(id))
	if err != nil {
		return err
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetMasterByIndex(l, b.Attrs().Index)
}

func (w *world) driver(dir string) *Driver {
	w.t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = root.Close() })
	return New(catalog.NetworkEnv{Networks: w, Mesh: w, Root: root})
}

func TestConformance(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns)
	for name, v6 := range map[string]string{"IPv4": "", "both": "fd00:99::/64"} {
		t.Run(name, func(t *testing.T) {
			var w *world
			var dir string
			c := networktest.Config{
				New: func(t *testing.T) network.Driver {
					w, dir = newWorld(t), t.TempDir()
					if v6 != "" { // two subnets of one network
						return New(catalog.NetworkEnv{Networks: oneNetwork{w}, Mesh: w, Root: w.driver(dir).c.Root})
					}
					return w.driver(dir)
				},
				Options:    map[string]string{"encrypted": "false", "multicast": "true", "mtu": "1400"},
				BadOptions: map[string]string{"encrypted": "maybe", "mtu": "1000", "multicsat": "true", "internal": "2"},
			}
			if v6 != "" {
				c.IPv6 = netip.MustParsePrefix(v6)
			}
			networktest.Run(t, c)
		})
	}
}

// oneNetwork is a world in which all IPv6 belongs to the network of 10.99.0.0/24.
type oneNetwork struct{ *world }

func (o oneNetwork) Lookup(p network.Pool) (string, error) {
	if p.Prefix.Addr().Is6() {
		p.Prefix = netip.MustParsePrefix("10.99.0.0/24")
	}
	return o.world.Lookup(p)
}

func blue() network.Network {
	return network.Network{
		ID: strings.Repeat("ab", 32), EnableIPv4: true, Options: map[string]string{},
		IPv4: []network.Pool{{AddressSpace: "remora", Prefix: netip.MustParsePrefix("10.99.0.0/16"), Gateway: netip.MustParsePrefix("10.99.0.1/16")}},
	}
}

func endpoint(i int) network.Endpoint {
	return network.Endpoint{
		ID:   strings.Repeat("cd", 31) + strconv.FormatInt(int64(16+i), 16),
		IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, 0, byte(2 + i)}), 16),
	}
}

func TestWrongNetworks(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns)
	for name, tt := range map[string]struct {
		change func(*network.Network, *world)
		class  error
		text   string
	}{
		"unknown option": {func(n *network.Network, _ *world) { n.Options["encrypt"] = "true" }, errdefs.ErrInvalid, `did you mean "encrypted"?`},
		"MTU":            {func(n *network.Network, _ *world) { n.Options["mtu"] = "900" }, errdefs.ErrInvalid, "1280"},
		"other IPAM":     {func(_ *network.Network, w *world) { w.unknown[netip.MustParsePrefix("10.99.0.0/16")] = true }, errdefs.ErrInvalid, "of no network"},
		"no gateway":     {func(n *network.Network, _ *world) { n.IPv4[0].Gateway = netip.Prefix{} }, errdefs.ErrUnsupported, "gateway"},
		"no pool":        {func(n *network.Network, _ *world) { n.IPv4 = nil }, errdefs.ErrUnsupported, "without addresses"},
		"two networks": {func(n *network.Network, _ *world) {
			n.IPv6 = []network.Pool{{Prefix: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParsePrefix("fd00::1/64")}}
		}, errdefs.ErrInvalid, "another network"},
		"internal or not": {func(n *network.Network, _ *world) { n.Internal, n.Options["internal"] = true, "false" }, errdefs.ErrInvalid, "--internal"},
		"refused":         {func(_ *network.Network, w *world) { w.refuse = errdefs.Errorf(errdefs.ErrExists, "it is encrypted") }, errdefs.ErrExists, "it is encrypted"},
	} {
		w, n := newWorld(t), blue()
		tt.change(&n, w)
		d := w.driver(t.TempDir())
		if err := d.CreateNetwork(t.Context(), n); !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := netlink.LinkByName(bridgeName("1099000016")); err == nil {
			t.Errorf("%s: the bridge is there", name)
		}
		if err := d.DeleteNetwork(t.Context(), n); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s: deletion: %v", name, err)
		}
	}
}

// TestRemovedFromTheClusterFirst: an engine releases the pool before it deletes the network.
func TestRemovedFromTheClusterFirst(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns)
	w, n, dir := newWorld(t), blue(), t.TempDir()
	must(t, w.driver(dir).CreateNetwork(t.Context(), n))
	w.unknown[n.IPv4[0].Prefix] = true
	must(t, w.driver(dir).DeleteNetwork(t.Context(), network.Network{ID: n.ID}))
	if _, err := netlink.LinkByName(bridgeName("1099000016")); err == nil {
		t.Error("the bridge is left")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestContainersTalk does what an engine does with the answers: two sandboxes on one bridge reach each other, and
// what was chosen is there.
func TestContainersTalk(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Netns, testenv.Busybox)
	w, n := newWorld(t), blue()
	n.Options = map[string]string{"multicast": "true", "internal": "true"}
	d := w.driver(t.TempDir())
	must(t, d.CreateNetwork(t.Context(), n))
	var pids []string
	for i := range 2 {
		ep := endpoint(i)
		made, err := d.CreateEndpoint(t.Context(), n, ep)
		must(t, err)
		if want := (net.HardwareAddr{2, 0x72, 10, 99, 0, byte(2 + i)}).String(); made.MAC.String() != want {
			t.Errorf("MAC %s, want %s", made.MAC, want)
		}
		ep.MAC = made.MAC
		a, err := d.Join(t.Context(), n, ep, network.Sandbox{})
		must(t, err)
		if a.Gateway.IsValid() || !a.NoGatewayBridge || !slices.Contains(a.Routes, network.Route{Destination: netip.MustParsePrefix("224.0.0.0/4")}) {
			t.Errorf("Join: %+v", a)
		}
		pid := sandbox(t)
		pids = append(pids, pid)
		run(t, "ip", "link", "set", a.Interface, "netns", pid, "name", "eth0")
		in := func(args ...string) string { return run(t, "nsenter", append([]string{"-t", pid, "-n"}, args...)...) }
		in("ip", "addr", "add", ep.IPv4.String(), "dev", "eth0")
		in("ip", "link", "set", "eth0", "up")
		if out := in("ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1380") || !strings.Contains(out, made.MAC.String()) {
			t.Errorf("in the sandbox: %s", out)
		}
	}
	busybox, err := testenv.BusyboxPath()
	must(t, err)
	for i, pid := range pids {
		for _, to := range []string{endpoint(1 - i).IPv4.Addr().String(), "10.99.0.1"} {
			run(t, "nsenter", "-t", pid, "-n", busybox, "ping", "-c1", "-W2", to)
		}
	}
	for i := range 2 {
		must(t, d.Leave(t.Context(), n, endpoint(i))) // the sandbox still has the other end
		outside, _ := portNames(endpoint(i).ID)
		if _, err := netlink.LinkByName(outside); err == nil {
			t.Errorf("%s is left", outside)
		}
		must(t, d.DeleteEndpoint(t.Context(), n, endpoint(i)))
	}
	must(t, d.DeleteNetwork(t.Context(), n))
}

// sandbox starts a process with a network namespace of its own and returns its ID.
func sandbox(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return strconv.Itoa(cmd.Process.Pid)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadmeListsTheOptions(t *testing.T) {
	text, err := os.ReadFile("README.md")
	must(t, err)
	if want := catalog.Markdown(catalog.Describe[options]()); !strings.Contains(string(text), want) {
		t.Errorf("README.md has not:\n%s", want)
	}
}
