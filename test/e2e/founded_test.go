package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkBothFounded: two hosts were each launched alone. "connect", said on either, makes one network of them while one has
// nothing in its own; once both have, even a container that is stopped, it is refused and both go on.
func TestNetworkBothFounded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialer  int // the first host was launched first
		prepare func(hosts []*lab.Host)
		mix     bool
	}{
		"from the older":   {dialer: 0, mix: true},
		"from the younger": {dialer: 1, mix: true},
		"the younger has a container that is stopped": {dialer: 0, mix: true, prepare: func(hosts []*lab.Host) {
			hosts[1].MustDocker("create", "--name", "later", "--net=remora", lab.ImageName, "true")
		}},
		"both have something": {dialer: 0, prepare: func(hosts []*lab.Host) {
			hosts[0].MustCli("network", "create", "blue")
			hosts[1].MustCli("network", "dns-add", "printer", "192.0.2.7")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, append([]testenv.Need{testenv.Dockerd, testenv.DockerCLI, testenv.Nftables}, engine...)...)
			wires := l.Switch(t)
			var hosts []*lab.Host
			var at []string
			for i := range 2 {
				h := l.Host(t, fmt.Sprintf("host%d", i))
				at = append(at, wires.Wire(h))
				h.Remora("")
				h.DockerdWithNetworks()
				h.Write("/etc/remora/password", networkPassword+"\n")
				h.MustCli("network", "launch", "--password-file", "/etc/remora/password")
				if !within(20*time.Second, func() bool { return has(h, "remora") }) {
					t.Fatalf("%s: no network", h.Name)
				}
				hosts = append(hosts, h)
				time.Sleep(1100 * time.Millisecond)
			}
			if test.prepare != nil {
				test.prepare(hosts)
			}
			hosts[test.dialer].MustCli("network", "connect", at[1-test.dialer])
			if !test.mix {
				if !within(20*time.Second, func() bool {
					return strings.Contains(hosts[test.dialer].MustCli("network", "status"), "two clusters do not mix")
				}) {
					t.Error(hosts[test.dialer].MustCli("network", "status"))
				}
				want(t, hosts[0].MustCli("network", "status", "networks"), "blue")
				want(t, hosts[1].MustCli("network", "dns-lookup", "printer"), "192.0.2.7")
				return
			}
			for _, h := range hosts {
				if !within(20*time.Second, func() bool {
					return strings.Contains(h.MustCli("network", "status"), "2 (1 self, 1 reachable)") && has(h, "remora")
				}) {
					t.Fatalf("%s is not in one network with the other:\n%s\n%s", h.Name, h.MustCli("network", "status"), networks(h))
				}
			}
			hosts[0].MustDocker("run", "-d", "--name", "web", "--net=remora", lab.ImageName, "sleep", "1000")
			ip := hosts[0].MustDocker("inspect", "-f", "{{.NetworkSettings.Networks.remora.IPAddress}}", "web")
			if !within(20*time.Second, func() bool {
				_, err := hosts[1].Docker("run", "--rm", "--net=remora", lab.ImageName, "ping", "-c", "1", "-W", "2", ip)
				return err == nil
			}) {
				t.Errorf("the containers do not reach each other:\n%s", hosts[1].MustCli("network", "status"))
			}
			if test.prepare != nil {
				hosts[1].MustDocker("start", "later")
			}
		})
	}
}
