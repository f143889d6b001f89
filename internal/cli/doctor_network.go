package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/mesh/kernel"
)

// leastMTU is the size of packets below which IPv6 does not work, and much else is slow.
const leastMTU = 1280

// networkLine is the network in a few words.
func networkLine(n control.NetworkSummary) string {
	if n.State != "ready" {
		return n.State + `; "remora network status" tells more`
	}
	line := fmt.Sprintf("ready, %d of %d hosts reachable (%d direct, %d relayed), networks %d, addresses %d of %d given, names %d, tunnel %s",
		n.Reachable, n.Members, n.Direct, n.Relayed, n.Networks, n.Given, n.Owned, n.Names, yesNo(n.Tunnel != "", n.Tunnel, "none"))
	if n.Problems > 0 {
		line += fmt.Sprintf(`, problems %d: "remora network status" tells them`, n.Problems)
	}
	return line
}

// network looks at the network across hosts, and at what on this host may be in its way. One that was not launched is
// no matter.
func (d *doctor) network(ctx context.Context) {
	if d.status == nil || d.status.Network == nil {
		return
	}
	const check = "network"
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	s, err := d.client.Networks().Status(ctx)
	if err != nil {
		d.fail(check, err.Error(), "")
		return
	}
	if s.State == "stopped" && len(s.Problems) == 0 {
		d.ok(check, "stopped; \"remora network launch\" starts it")
		return
	}
	if s.State == "ready" {
		d.ok(check, networkLine(s.Summary()))
	} else {
		d.fail(check, s.State, "\"remora network status\" says what it waits for")
	}
	for _, p := range s.Problems {
		d.warn(check, p.Text, p.Mend)
	}
	d.networkPorts(ctx, s)
	d.networkPaths(s)
	d.networkKernel(s)
	d.networkManagers("/")
	if s.State == "ready" && !s.DNS.Installed {
		d.warn(check, "the engine does not tell its containers of the DNS server: only those that were run with it find names of other hosts",
			"remora network dns install; or run them with what \"remora network dns-args\" prints")
	}
}

// networkPorts looks whether this host can be dialled where it says.
func (d *doctor) networkPorts(ctx context.Context, s control.NetworkStatus) {
	for _, at := range s.Listen {
		if at.Addr().IsUnspecified() {
			continue
		}
		var dialer net.Dialer
		dialing, cancel := context.WithTimeout(ctx, time.Second)
		conn, err := dialer.DialContext(dialing, "tcp", at.String())
		cancel()
		if err != nil {
			d.warn("network", fmt.Sprintf("this host says that it is reached at TCP %s, and does not answer there: %v", at, err),
				"open the port in the host's firewall; or launch with --advertise and an address that it has")
			continue
		}
		_ = conn.Close()
		d.ok("network", fmt.Sprintf("TCP %s answers", at))
	}
}

// networkPaths looks at the ways to other hosts.
func (d *doctor) networkPaths(s control.NetworkStatus) {
	for _, p := range s.Peers {
		if p.State != "reachable" {
			continue // which one cannot be reached is among the problems
		}
		switch {
		case strings.HasPrefix(p.Path, "via "):
			d.warn("network", fmt.Sprintf("data to %s goes %s, which costs time", p.Nickname, p.Path),
				"open the UDP port of the tunnel, 6784 if none was chosen, on one of the two hosts")
		case p.Path != "direct":
			d.fail("network", fmt.Sprintf("data to %s has no way", p.Nickname), "open the UDP port of the tunnel, 6784 if none was chosen, on one of the two hosts")
		}
		if p.MTU != 0 && p.MTU < leastMTU {
			d.warn("network", fmt.Sprintf("the path to %s carries packets of %d bytes only: something between drops larger ones", p.Nickname, p.MTU),
				"find the link with the small MTU, often another tunnel, and have it answer by ICMP or carry more")
		}
	}
}

// networkKernel looks at what on this host may be in the way.
func (d *doctor) networkKernel(s control.NetworkStatus) {
	const check = "network"
	if raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err == nil && strings.TrimSpace(string(raw)) != "1" {
		d.warn(check, "this host forwards packets of Remora's interfaces alone (net.ipv4.ip_forward is 0): containers do not get out", "sysctl -w net.ipv4.ip_forward=1, and in /etc/sysctl.d for the next boot")
	}
	vetoes, err := kernel.Vetoes()
	if err != nil {
		d.warn(check, "what firewalls there are cannot be seen: "+err.Error(), "run it as root")
	}
	for _, chain := range vetoes {
		d.warn(check, chain+" drops what it forwards unless a rule of its own lets it pass",
			`let what comes in or goes out by interfaces "rm-*" pass there`)
	}
	routes, err := kernel.Foreign()
	if err != nil {
		d.warn(check, "routes cannot be seen: "+err.Error(), "")
	}
	overlaps(s, routes, func(n string, p, r netip.Prefix) {
		d.warn(check, fmt.Sprintf("subnet %s of network %q: this host has another route, to %s", p, n, r),
			"remove that route, or use a network with another subnet")
	})
}

// overlaps calls f with routes of others to what is a network's.
func overlaps(s control.NetworkStatus, routes []netip.Prefix, f func(network string, subnet, route netip.Prefix)) {
	for _, n := range s.Networks {
		for _, p := range n.Subnets {
			for _, r := range routes {
				if r.Bits() > 0 && r.Overlaps(p) {
					f(n.Name, p, r)
				}
			}
		}
	}
}
