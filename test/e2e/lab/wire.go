package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// Switch connects hosts, as the switch of a rack does: 10.99.0.0/24. A host may stand behind a router of its own,
// which translates addresses and lets nobody in.
type Switch struct {
	t     testing.TB
	name  string
	hosts map[*Host]*wire
	last  int // of the addresses that were given to who moved
}

// wire is how a host is connected.
type wire struct {
	port    string // in the switch's namespace
	router  string // namespace of the router; empty without
	address string // on the switch: of the host, or of its router
	n       int
	moves   int
}

var switches atomic.Int32

// Switch makes a switch, which goes with the test.
func (l *Lab) Switch(t testing.TB) *Switch {
	t.Helper()
	s := &Switch{t: t, name: fmt.Sprintf("remora-%d-%d", os.Getpid(), switches.Add(1)), hosts: map[*Host]*wire{}}
	s.namespace(s.name)
	for _, bridge := range []string{"br0", "br1"} { // the second has who is split off
		s.ip("-n", s.name, "link", "add", bridge, "type", "bridge")
		s.ip("-n", s.name, "link", "set", bridge, "up")
	}
	return s
}

// namespace makes a network namespace, which goes with the test.
func (s *Switch) namespace(name string) {
	s.t.Helper()
	s.ip("netns", "add", name)
	s.t.Cleanup(func() { s.ip("netns", "del", name) })
	s.ip("-n", name, "link", "set", "lo", "up")
}

func (s *Switch) ip(args ...string) {
	s.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		s.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Wire connects a host and returns its address.
func (s *Switch) Wire(h *Host) (address string) {
	s.t.Helper()
	n := len(s.hosts) + 1
	port := fmt.Sprintf("p%d", n)
	s.hosts[h] = &wire{port: port, n: n, address: fmt.Sprintf("10.99.0.%d", 10+n)}
	s.ip("link", "add", port, "netns", s.name, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(h.pid))
	s.ip("-n", s.name, "link", "set", port, "master", "br0", "up")
	h.Must("ip", "addr", "add", fmt.Sprintf("10.99.0.%d/24", 10+n), "dev", "eth0")
	h.Must("ip", "link", "set", "eth0", "up")
	return fmt.Sprintf("10.99.0.%d", 10+n)
}

// WireBehindNAT connects a host through a router that hides it: it can dial out, and nobody can dial it. It returns
// the host's address, which means nothing to others, and the router's.
func (s *Switch) WireBehindNAT(h *Host) (inside, outside string) {
	s.t.Helper()
	n := len(s.hosts) + 1
	port, router := fmt.Sprintf("p%d", n), fmt.Sprintf("%s-r%d", s.name, n)
	s.namespace(router)
	s.ip("link", "add", port, "netns", s.name, "type", "veth", "peer", "name", "wan", "netns", router)
	s.ip("-n", s.name, "link", "set", port, "master", "br0", "up")
	s.ip("link", "add", "lan", "netns", router, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(h.pid))
	inside, outside = fmt.Sprintf("192.168.%d.2", n), fmt.Sprintf("10.99.0.%d", 200+n)
	s.hosts[h] = &wire{port: port, router: router, n: n, address: outside}
	s.ip("-n", router, "addr", "add", outside+"/24", "dev", "wan")
	s.ip("-n", router, "addr", "add", fmt.Sprintf("192.168.%d.1/24", n), "dev", "lan")
	s.ip("-n", router, "link", "set", "wan", "up")
	s.ip("-n", router, "link", "set", "lan", "up")
	s.ip("netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	s.ip("netns", "exec", router, "nft", `table ip nat {
		chain out { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
		chain in { type filter hook forward priority filter; policy accept; iifname "wan" ct state new drop; }
		chain here { type filter hook input priority filter; policy accept; iifname "wan" ct state new meta l4proto { tcp, udp } drop; }
	}`)
	h.Must("ip", "addr", "add", inside+"/24", "dev", "eth0")
	h.Must("ip", "link", "set", "eth0", "up")
	h.Must("ip", "route", "add", "default", "via", fmt.Sprintf("192.168.%d.1", n))
	return inside, outside
}

// Cut takes a host off the switch, without a word to anybody, until Heal.
func (s *Switch) Cut(h *Host) {
	s.t.Helper()
	s.ip("-n", s.name, "link", "set", s.hosts[h].port, "nomaster")
}

// Heal connects it again.
func (s *Switch) Heal(h *Host) {
	s.t.Helper()
	s.ip("-n", s.name, "link", "set", s.hosts[h].port, "master", "br0")
}
