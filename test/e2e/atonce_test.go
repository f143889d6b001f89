package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkAtOnce: two hosts are launched at the same time, each told of the other. They make one cluster, which has all that
// one has that a host alone began.
func TestNetworkAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, append([]testenv.Need{testenv.Dockerd, testenv.DockerCLI, testenv.Nftables}, engine...)...)
	wires := l.Switch(t)
	var hosts []*lab.Host
	var at []string
	for _, name := range []string{"left", "right"} {
		h := l.Host(t, name)
		at = append(at, wires.Wire(h))
		h.Remora("")
		h.DockerdWithNetworks()
		h.Write("/etc/remora/password", networkPassword+"\n")
		hosts = append(hosts, h)
	}
	var launches sync.WaitGroup
	for i, h := range hosts {
		launches.Go(func() { _, _ = h.Cli("network", "launch", "--password-file", "/etc/remora/password", at[1-i]) })
	}
	launches.Wait()
	for _, h := range hosts {
		if !within(20*time.Second, func() bool {
			return strings.Contains(h.MustCli("network", "status"), "2 (1 self, 1 reachable)") && has(h, "remora")
		}) {
			t.Fatalf("%s is not in a whole network:\n%s\n%s", h.Name, h.MustCli("network", "status"), networks(h))
		}
	}
	for _, h := range hosts { // a subnet of the range is cut on either
		h.MustCli("network", "create", "of-"+h.Name)
	}
}
