package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkIPv6: networks that are to have IPv6, and name no subnet, get one each of the cluster's own unique local range, the same on all
// hosts. Containers reach each other by it, and by name.
func TestNetworkIPv6(t *testing.T) {
	t.Parallel()
	m := newMeshedOf(t, "nyc-host", "london", "laptop")
	nyc := m.hosts[0]
	nyc.MustDocker("network", "create", "--ipv6", "-d", "remora", "--ipam-driver", "remora", "six")
	nyc.MustDocker("network", "create", "--ipv6", "-d", "remora", "--ipam-driver", "remora", "--ipam-opt", "net=named", "named")
	nyc.MustCli("network", "create", "--ipv6", "ours")
	subnets := map[string]netip.Prefix{}
	for _, name := range []string{"six", "named", "ours"} {
		for i, h := range m.hosts {
			var p netip.Prefix
			if !within(20*time.Second, func() bool {
				out, err := h.Docker("network", "inspect", "-f", "{{.EnableIPv6}} {{range .IPAM.Config}}{{.Subnet}} {{end}}", name)
				f := strings.Fields(out)
				if err != nil || len(f) != 3 || f[0] != "true" {
					return false
				}
				p, err = netip.ParsePrefix(f[2])
				return err == nil
			}) {
				t.Fatalf("host %s: network %s has no IPv6 subnet:\n%s", h.Name, name, h.MustCli("network", "status"))
			}
			if p.Bits() != 64 || !netip.MustParsePrefix("fd00::/8").Contains(p.Addr()) {
				t.Errorf("network %s: %v is no /64 of a unique local range", name, p)
			}
			if i == 0 {
				for other, q := range subnets {
					if q.Overlaps(p) {
						t.Errorf("networks %s and %s overlap: %v, %v", other, name, q, p)
					}
				}
				subnets[name] = p
			} else if p != subnets[name] {
				t.Errorf("host %s: network %s is %v, and %v on the first", h.Name, name, p, subnets[name])
			}
		}
	}
	for _, name := range []string{"six", "named", "ours"} {
		nyc.MustDocker("run", "-d", "--name", "at-"+name, "--net", name, lab.ImageName, "sleep", "1000")
		at := nyc.MustDocker("inspect", "-f", "{{(index .NetworkSettings.Networks \""+name+"\").GlobalIPv6Address}}", "at-"+name)
		if ip, err := netip.ParseAddr(at); err != nil || !subnets[name].Contains(ip) {
			t.Fatalf("a container on %s has %q", name, at)
		}
		for _, h := range m.hosts[1:] {
			args := append([]string{"run", "--rm", "--net", name}, dnsArgs(h)...)
			args = append(args, lab.ImageName, "sh", "-c", fmt.Sprintf("ping -6 -c 1 -W 2 %s && ping -6 -c 1 -W 2 at-%s.remora.local && nslookup -type=aaaa at-%s.remora.local", at, name, name))
			last := ""
			if !within(10*time.Second, func() bool {
				out, err := h.Docker(args...)
				last = fmt.Sprint(out, err)
				return err == nil && strings.Contains(out, "Address: "+at)
			}) {
				t.Errorf("network %s from %s: %s\n%s", name, h.Name, last, h.MustCli("network", "status"))
			}
		}
	}
}
