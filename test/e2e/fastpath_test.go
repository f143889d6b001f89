package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkFastPath: containers of two plain hosts reach each other by name though a rule in DOCKER-USER lets nothing
// pass, since these hosts' owner said so; one that is reached from outside, or goes there, is not let pass.
func TestNetworkFastPath(t *testing.T) {
	t.Parallel()
	l := newLab(t, append([]testenv.Need{testenv.Dockerd, testenv.DockerCLI, testenv.Nftables}, engine...)...)
	m := &meshed{wires: l.Switch(t), remora: l.Remora}
	for _, name := range []string{"nyc-host", "london"} {
		h := l.Host(t, name)
		at := m.wires.Wire(h)
		m.daemons = append(m.daemons, h.Remora("version = 1\n[network]\nfast_path = true\n"))
		m.engines = append(m.engines, h.DockerdWithNetworks())
		args := []string{"network", "launch", "--no-password"}
		if m.address == "" {
			m.address = at
		} else {
			args = append(args, m.address)
		}
		h.MustCli(args...)
		m.hosts = append(m.hosts, h)
	}
	m.whole(t)
	nyc, london := m.hosts[0], m.hosts[1]
	nyc.MustDocker("run", "-d", "--name", "nyc", "-p", "8080:4242", "--net=remora", lab.ImageName, "nc", "-ll", "-p", "4242", "-e", "echo", "Hello from NYC")
	answers := func() (string, bool) {
		out, err := m.run(london, "nc -w 5 nyc 4242 </dev/null")
		return fmt.Sprint(out, err), err == nil && strings.Contains(out, "Hello from NYC")
	}
	for _, h := range m.hosts {
		h.Must("nft", "add", "table", "ip", "strict")
		h.Must("nft", "add", "chain", "ip", "strict", "strictly", "{ type filter hook forward priority -10; policy drop; }")
	}
	last := ""
	if !within(15*time.Second, func() (ok bool) { last, ok = answers(); return ok }) {
		t.Fatalf("%s\n%s", last, london.MustCli("network", "status", "connections"))
	}
	want(t, london.MustCli("network", "status", "connections"), "route, fast path")
	if out, err := london.Run("busybox", "nc", "-w", "2", m.address, "8080"); err == nil && strings.Contains(out, "Hello") {
		t.Errorf("the published port passes the firewall: %s", out)
	}
	for _, h := range m.hosts {
		h.Must("nft", "delete", "table", "ip", "strict")
	}
	if !within(10*time.Second, func() bool {
		out, _ := london.Run("busybox", "nc", "-w", "2", m.address, "8080")
		return strings.Contains(out, "Hello")
	}) {
		t.Error("the published port does not answer")
	}
	nyc.MustDocker("rm", "-f", "nyc")
	nyc.MustCli("network", "reset", "--yes")
	if out := nyc.Must("nft", "list", "ruleset"); strings.Contains(out, "remora") {
		t.Errorf("after a reset:\n%s", out)
	}
}
