package mesh_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh"
	"github.com/remora-plugins/remora/internal/mesh/plan"
	"github.com/remora-plugins/remora/internal/mesh/probe"
)

// pair is two hosts on one link, with a container of blue on each.
func pair(t *testing.T) (l *lab, a, b *host, a1, b1 box) {
	t.Helper()
	l = newLab(t)
	a, b = l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24")
	l.tell([]record.Network{blue, red})
	l.start()
	a1, b1 = a.box(blue), b.box(blue)
	a1.reach(b1)
	return l, a, b, a1, b1
}

// TestRepairs takes away, one after the other, all that the mesh has made, and something of somebody else's beside it.
func TestRepairs(t *testing.T) {
	l, a, _, a1, b1 := pair(t)
	bridge := plan.BridgeName(blue.ID)
	l.ip(a.ns, "route add 192.0.2.0/24 via 10.9.0.254")
	l.in(a.ns, "nft add table inet other")
	l.in(a.ns, "nft add chain inet other mine")
	for _, break1 := range []string{
		"nft delete table inet remora",
		"nft flush table inet remora",
		"nft flush chain inet remora net-" + blue.ID[:10] + "-from",
		"nft insert rule inet remora forward drop",
		"ip route del 10.40.1.0/24 dev rm-wg",
		"ip route flush proto 82",
		"ip -6 route flush proto 82",
		"ip link set rm-wg down",
		"ip link del rm-wg",
		"ip link set " + bridge + " down",
		"ip addr flush dev " + bridge,
		"ip link set rmv1 nomaster",
		"ip link del " + bridge,
		"nft flush ruleset",
	} {
		before := a.status().Repairs
		if strings.Contains(break1, "flush ruleset") {
			l.in(a.ns, "nft delete table inet other") // and not by us
		}
		l.in(a.ns, break1)
		began := time.Now()
		a1.reach(b1)
		b1.reach(a1)
		eventually(t, 5*time.Second, "repairs after: "+break1, func() bool { return a.status().Repairs > before })
		t.Logf("%-60s %v", break1, time.Since(began).Round(time.Millisecond))
		if s := a.status(); len(s.Problems) > 0 {
			t.Errorf("after %s: %q", break1, s.Problems)
		}
	}
	if out := l.in(a.ns, "ip route show 192.0.2.0/24"); !strings.Contains(out, "10.9.0.254") {
		t.Error("somebody else's route is gone")
	}
	if out := l.in(a.ns, "nft list table inet remora"); !strings.Contains(out, "10.40.1.0/24") {
		t.Errorf("the rules do not name the other block:\n%s", out)
	}
	// Left alone, nothing is repaired.
	before := a.status().Repairs
	time.Sleep(time.Second)
	if after := a.status().Repairs; after != before {
		t.Errorf("%d repairs with nothing broken\n%s", after-before, a.stderr.Bytes())
	}
}

// TestKill kills the daemons while packets flow: none is lost, and the tunnels are those from before.
func TestKill(t *testing.T) {
	l, a, b, a1, b1 := pair(t)
	before := a.tunnels()
	if len(before) != 1 {
		t.Fatalf("%d tunnels", len(before))
	}
	var p *probe.Prober
	inside(t, a1.ns, func() {
		var err error
		if p, err = probe.New(t.Context()); err != nil {
			t.Error(err)
		}
	})
	defer p.Close()
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent, lost := 0, 0
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, ok := p.Ping(ctx, b1.addrs[0], 1000)
				mu.Lock()
				defer mu.Unlock()
				if sent++; !ok {
					lost++
				}
			})
		}
	})
	for range 3 {
		for _, h := range []*host{a, b} {
			h.end()
			time.Sleep(300 * time.Millisecond)
			h.start()
			h.status()
			time.Sleep(700 * time.Millisecond)
		}
	}
	close(stop)
	wg.Wait()
	if t.Logf("%d packets", sent); lost > 0 || sent < 500 {
		t.Errorf("%d packets of %d were lost", lost, sent)
	}
	if after := a.tunnels(); !slices.Equal(before, after) {
		t.Errorf("tunnel processes %v, before %v", after, before)
	}
	if s := a.status(); s.Repairs > 0 || len(s.Problems) > 0 {
		t.Errorf("%+v", s)
	}
	a3 := a.box(blue)
	a3.reach(b1)
	_ = l
}

// tunnels are the processes that serve a tunnel of this host.
func (h *host) tunnels() (pids []string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "tunnel\x00") && strings.Contains(string(text), h.config.RunDir) {
			pids = append(pids, strings.Split(path, "/")[2])
		}
	}
	return pids
}

// TestTunnelDies: the tunnel's process ends as nobody means it to, and there is another.
func TestTunnelDies(t *testing.T) {
	_, a, _, a1, b1 := pair(t)
	pids := a.tunnels()
	if err := exec.Command("kill", append([]string{"-9"}, pids...)...).Run(); err != nil {
		t.Fatal(err)
	}
	a1.reach(b1)
	second := a.tunnels()
	if len(second) != 1 || second[0] == pids[0] {
		t.Errorf("tunnel processes %v, before %v", second, pids)
	}
	// One that nobody can speak to is replaced as well.
	if err := os.Remove(a.config.RunDir + "/rm-wg.sock"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "there is another", func() bool {
		third := a.tunnels()
		return len(third) == 1 && third[0] != second[0]
	})
	a1.reach(b1)
}

// TestNarrow narrows the way below without telling anybody, while data flows.
func TestNarrow(t *testing.T) {
	l, a, b, a1, b1 := pair(t)
	for _, h := range []*host{a, b} { // packets on the wire are of the size that a wire has
		l.ip(h.ns, "link set dev eth0 gso_max_segs 1")
	}
	text := strings.Repeat("x", 1<<16)
	wide, err := a1.send(b1, text, 200)
	if err != nil {
		t.Fatal(err)
	}
	cut := make(chan time.Time, 1)
	time.AfterFunc(50*time.Millisecond, func() {
		for _, name := range []string{"a", "b"} {
			_ = exec.Command("ip", "-n", l.router, "link", "set", "dev", name, "mtu", "1300").Run()
		}
		cut <- time.Now()
	})
	if _, err := a1.send(b1, text, 600); err != nil {
		t.Fatalf("while the way was narrowed: %v", err)
	}
	t.Logf("13 MB took %v before; what was on its way when it was narrowed ended %v after", wide, time.Since(<-cut))
	fits := func(h *host) bool { m := h.status().Peers[0].MTU; return m <= 1240 && m >= 1228 }
	eventually(t, 15*time.Second, "the MTU is known to both", func() bool { return fits(a) && fits(b) })
	narrow, err := a1.send(b1, text, 200)
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("13 MB took %v after", narrow); narrow > 10*wide+time.Second {
		t.Errorf("the narrow way takes %v, the wide one took %v", narrow, wide)
	}
	six := b1
	six.addrs = six.addrs[1:]
	if took, err := a1.send(six, text, 200); err != nil || took > 10*wide+time.Second {
		t.Errorf("over IPv6, which asks for more than the narrow way carries: %v, %v", took, err)
	}
	// A new process remembers, and one that finds the way wide again uses that.
	a.end()
	a.start()
	if m := a.status().Peers; len(m) > 0 && m[0].MTU > 1240 {
		t.Errorf("after a restart the MTU is %d", m[0].MTU)
	}
	a.end()
	for _, name := range []string{"a", "b"} {
		l.ip(l.router, "link set dev "+name+" mtu 1500")
	}
	a.start()
	eventually(t, 15*time.Second, "the wide way is found", func() bool { m := a.status().Peers; return len(m) > 0 && m[0].MTU == 1420 })
}

// TestRelay: two hosts that do not reach each other, and a third that reaches both.
func TestRelay(t *testing.T) {
	l := newLab(t)
	a, b, c := l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24"), l.lan("c", "10.9.0.3/24")
	l.in(l.router, "nft add table bridge cut")
	l.in(l.router, "nft add chain bridge cut pass { type filter hook forward priority 0 ; }")
	l.in(l.router, "nft add rule bridge cut pass ip saddr 10.9.0.1 ip daddr 10.9.0.3 drop")
	sees := record.Links{Links: []record.Link{
		{Host: a.self, RTT: time.Millisecond, Tunnel: a.member.Tunnel[0]}, {Host: c.self, RTT: time.Millisecond, Tunnel: c.member.Tunnel[0]},
	}}
	l.tell([]record.Network{blue, red}, body(t, b.self, record.KindLinks, "", sees))
	l.start()
	a1, c1, bred := a.box(blue), c.box(blue), b.box(red)
	began := time.Now()
	a1.reach(c1)
	t.Logf("relayed after %v", time.Since(began))
	c1.reach(a1)
	if !l.secretly(a1, c1) {
		t.Error("what is relayed was read on the way")
	}
	to := func(h, o *host) mesh.Peer {
		for _, p := range h.status().Peers {
			if p.Host == o.self {
				return p
			}
		}
		t.Fatalf("%s does not know %s", h.name, o.name)
		return mesh.Peer{}
	}
	if p := to(a, c); p.Path != "relayed" || p.Via != b.self || !p.Encrypted {
		t.Errorf("%+v", p)
	}
	if a1.pings(bred.addrs[0], 2) {
		t.Error("networks reach each other")
	}
	l.in(l.router, "nft flush ruleset")
	eventually(t, 15*time.Second, "they are direct again", func() bool { return to(a, c).Path == "direct" && to(c, a).Path == "direct" })
	a1.reach(c1)
}

// TestPolicyDrop: an engine or a firewall has set the policies of iptables to drop, of either kind there is.
func TestPolicyDrop(t *testing.T) {
	for _, suffix := range []string{"-nft", "-legacy"} {
		t.Run("iptables"+suffix, func(t *testing.T) {
			l := newLab(t)
			a, b := l.lan("a", "10.9.0.1/24"), l.lan("b", "10.9.0.2/24")
			for _, tool := range []string{"iptables", "ip6tables"} {
				for _, rule := range []string{
					"-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER", "-A FORWARD -i docker0 -j DROP", "-P FORWARD DROP",
					"-A INPUT -p udp --dport 6784 -j ACCEPT", "-A INPUT -p ipv6-icmp -j ACCEPT", "-P INPUT DROP",
				} {
					l.in(a.ns, tool+suffix+" "+rule)
				}
			}
			l.tell([]record.Network{blue})
			l.start()
			a1, b1 := a.box(blue), b.box(blue)
			a1.reach(b1)
			b1.reach(a1)
			bridge := box{lab: l, ns: a.ns, addrs: []netip.Addr{netip.MustParseAddr("10.40.0.1")}}
			if !bridge.hears(t, 53, func() { a1.datagram(t, netip.Addr{}, bridge.addrs[0], 53) }) {
				t.Error("a container cannot ask its bridge for names")
			}
			if bridge.hears(t, 54, func() { a1.datagram(t, netip.Addr{}, bridge.addrs[0], 54) }) {
				t.Error("a container reaches more of a host that drops")
			}
			rules := func() string { return l.in(a.ns, "iptables"+suffix+" -S") }
			for _, want := range []string{"-P FORWARD DROP\n", "-A FORWARD -i rm-+ -j ACCEPT\n", "-A FORWARD -o rm-+ -j ACCEPT\n", "-A INPUT -i rm-+ -p udp -m udp --dport 53 -j ACCEPT\n"} {
				if !strings.Contains(rules(), want) {
					t.Errorf("no %q in\n%s", want, rules())
				}
			}
			if suffix == "-nft" {
				l.in(a.ns, "iptables-nft -F FORWARD")
				a1.reach(b1)
				// What people forbid stays forbidden.
				l.in(a.ns, "iptables-nft -F FORWARD")
				l.in(a.ns, "iptables-nft -I FORWARD -j DOCKER-USER")
				l.in(a.ns, "iptables-nft -I DOCKER-USER -d "+b1.addrs[0].String()+" -j DROP")
				eventually(t, 5*time.Second, "our rules are below", func() bool {
					jump, own := strings.Index(rules(), "-A FORWARD -j DOCKER-USER"), strings.Index(rules(), "-A FORWARD -i rm-+")
					return jump >= 0 && own > jump
				})
				if a1.pings(b1.addrs[0], 2) {
					t.Error("a rule in DOCKER-USER does not hold")
				}
			}
			if s := a.status(); len(s.Problems) > 0 {
				t.Errorf("%q", s.Problems)
			}
			a.must(order{Verb: "reset"})
			if got := rules(); strings.Contains(got, "rm-") {
				t.Errorf("after reset:\n%s", got)
			}
		})
	}
}

// datagram sends one, from an address if there is one.
func (b box) datagram(t *testing.T, from, to netip.Addr, port int) {
	t.Helper()
	inside(t, b.ns, func() {
		local := &net.UDPAddr{}
		if from.IsValid() {
			local.IP = from.AsSlice()
		}
		c, err := net.DialUDP("udp4", local, &net.UDPAddr{IP: to.AsSlice(), Port: port})
		if err == nil {
			_, err = c.Write([]byte("a datagram"))
			_ = c.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// hears reports whether a datagram comes to a port of a box while something is done.
func (b box) hears(t *testing.T, port int, do func()) bool {
	t.Helper()
	var c *net.UDPConn
	var err error
	inside(t, b.ns, func() { c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	do()
	_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	_, _, err = c.ReadFrom(make([]byte, 100))
	return err == nil
}

// TestReset leaves no trace, and the same host can start again.
func TestReset(t *testing.T) {
	l, a, _, a1, b1 := pair(t)
	a.must(order{Verb: "reset"})
	for command, trace := range map[string]string{
		"ip -o link": "rm-", "ip route show table all": "proto 82", "ip -6 route show table all": "proto 82", "nft list ruleset": "remora", "ls " + a.config.RunDir + " " + a.config.Dir: ".json",
	} {
		if out := l.in(a.ns, command); strings.Contains(out, trace) {
			t.Errorf("%s:\n%s", command, out)
		}
	}
	eventually(t, 5*time.Second, "the tunnel's process ends", func() bool { return len(a.tunnels()) == 0 })
	if a1.pings(b1.addrs[0], 2) {
		t.Error("containers still reach each other")
	}
	a.end()
	a.start()
	clear(a.network)
	a2 := a.box(blue)
	a2.reach(b1)
}

// TestStop: a daemon that ends leaves containers talking.
func TestStop(t *testing.T) {
	_, a, b, a1, b1 := pair(t)
	for _, h := range []*host{a, b} {
		_ = h.in.Close()
		if err := h.cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", h.name, err, h.stderr.Bytes())
		}
		h.cmd = nil
	}
	a1.reach(b1)
	b1.reach(a1)
}

// TestExposed: the host itself answers pings of a network, and no more unless it is exposed.
func TestExposed(t *testing.T) {
	l, a, _, _, b1 := pair(t)
	bridge := box{lab: l, ns: a.ns, addrs: []netip.Addr{netip.MustParseAddr("10.40.0.1")}}
	b1.reach(bridge)
	if _, err := b1.send(bridge, "x", 1); err == nil {
		t.Error("a host that is not exposed is reached")
	}
	a.must(order{Verb: "expose", Network: blue.ID, Addresses: []netip.Prefix{netip.MustParsePrefix("10.40.0.1/32")}})
	if _, err := b1.send(bridge, "x", 1); err != nil {
		t.Errorf("a host that is exposed is not reached: %v", err)
	}
	// The other way round the host always may.
	if _, err := bridge.send(b1, "x", 1); err != nil {
		t.Errorf("a host does not reach a container elsewhere: %v", err)
	}
}

// TestTwoBehindNAT: two hosts, each behind a router of its own, meet at the addresses where a third sees them.
func TestTwoBehindNAT(t *testing.T) {
	l := newLab(t)
	b := l.lan("b", "10.9.0.2/24")
	var hidden []*host
	for i, name := range []string{"a", "c"} {
		// A router between the host and the others, which keeps ports and drops what nobody asked for.
		gate := l.namespace("gate" + name)
		h := l.behind(name, "10.7.0.1/24", "10.7.0.254/24")
		l.ip(l.router, "link set dev "+name+" netns "+gate)
		l.ip(gate, "link set dev "+name+" up")
		l.ip(gate, "addr add 10.7.0.254/24 dev "+name)
		l.ip(l.router, "link add name up"+name+" type veth peer name up netns "+gate)
		l.ip(l.router, "link set dev up"+name+" up master br0")
		l.ip(gate, "addr add 10.9.0.10"+string(rune('0'+i))+"/24 dev up")
		l.ip(gate, "link set dev up up")
		l.sysctl(gate, "net.ipv4.ip_forward=1")
		l.in(gate, "nft add table ip nat")
		l.in(gate, "nft add chain ip nat post { type nat hook postrouting priority 100 ; }")
		l.in(gate, "nft add rule ip nat post oifname up masquerade")
		l.in(gate, "nft add chain ip nat pass { type filter hook forward priority 0 ; }")
		l.in(gate, "nft add rule ip nat pass iifname up ct state new drop")
		l.in(gate, "nft add chain ip nat in { type filter hook input priority 0 ; }")
		l.in(gate, "nft add rule ip nat in iifname up udp dport 6784 drop")
		h.member.Control, h.member.Tunnel = nil, nil
		hidden = append(hidden, h)
	}
	a, c := hidden[0], hidden[1]
	l.tell([]record.Network{blue})
	l.start()
	a1, b1, c1 := a.box(blue), b.box(blue), c.box(blue)
	a1.reach(b1)
	c1.reach(b1)
	var seen record.Links
	eventually(t, 10*time.Second, "the third sees both", func() bool {
		seen = record.Links{}
		for _, p := range b.status().Peers {
			if p.Up && p.Endpoint.IsValid() {
				seen.Links = append(seen.Links, record.Link{Host: p.Host, RTT: p.Latency, Tunnel: p.Endpoint})
			}
		}
		return len(seen.Links) == 2
	})
	l.tell([]record.Network{blue}, body(t, b.self, record.KindLinks, "", seen))
	began := time.Now()
	a1.reach(c1)
	t.Logf("they meet after %v", time.Since(began))
	eventually(t, 15*time.Second, "they are direct", func() bool {
		for _, h := range hidden {
			for _, p := range h.status().Peers {
				if p.Path != "direct" || !p.Up {
					return false
				}
			}
		}
		return true
	})
	a1.reach(c1)
}
