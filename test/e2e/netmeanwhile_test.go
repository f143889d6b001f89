package e2e

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkMeanwhile: the network is stopped, and the engine goes on. What it removes meanwhile is gone when the network is
// launched again: no interface of a container stays, and a network can be made anew.
func TestNetworkMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLab(t, append([]testenv.Need{testenv.Dockerd, testenv.DockerCLI, testenv.Nftables}, engine...)...)
	h := l.Host(t, "alone")
	l.Switch(t).Wire(h)
	h.Remora("")
	h.DockerdWithNetworks()
	h.Write("/etc/remora/password", networkPassword+"\n")
	h.MustCli("network", "launch", "--password-file", "/etc/remora/password")
	if !within(20*time.Second, func() bool { return has(h, "remora") }) {
		t.Fatalf("no network:\n%s", h.MustCli("network", "status"))
	}
	blue := []string{"network", "create", "-d", "remora", "--ipam-driver", "remora", "--ipam-opt", "net=blue", "blue"}
	h.MustDocker(blue...)
	h.MustDocker("run", "-d", "--name", "web", "--net=blue", lab.ImageName, "sleep", "1000")
	h.MustCli("network", "stop")
	h.MustDocker("rm", "-f", "web")
	is(t, "interfaces of containers that are left", h.Must("sh", "-c", "ip -o link | grep -c rmv || true"), "0")
	h.MustDocker("network", "rm", "blue")
	h.MustCli("network", "launch")
	last := ""
	if !within(20*time.Second, func() bool {
		if has(h, "blue") {
			return true
		}
		out, err := h.Docker(blue...)
		last = out
		return err == nil
	}) {
		t.Fatalf("the network cannot be made again: %s\n%s", last, h.MustCli("network", "status"))
	}
	h.MustDocker("run", "--rm", "--net=blue", lab.ImageName, "true")
}
