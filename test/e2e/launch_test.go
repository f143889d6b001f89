package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
)

// TestNetworkLaunchKilled kills the daemon at many moments of a launch. The next launch, or the next start, makes the
// cluster whole, and a reset leaves nothing.
func TestNetworkLaunchKilled(t *testing.T) {
	l := newLab(t, append([]testenv.Need{testenv.Nftables}, engine...)...)
	h := l.Host(t, "h1")
	l.Switch(t).Wire(h)
	h.Write("/etc/remora/password", networkPassword+"\n")
	daemon := h.Remora("")
	h.DockerdWithNetworks()
	launch := []string{"network", "launch", "--password-file", "/etc/remora/password"}
	for round := range 8 {
		begun := h.Start(nil, l.Remora, launch...)
		time.Sleep(time.Duration(100+round*60) * time.Millisecond)
		daemon.Kill()
		<-begun.Exited()
		daemon = h.Remora("")
		h.MustCli(launch...)
		if !within(20*time.Second, func() bool { return has(h, "remora") }) {
			t.Fatalf("round %d: no network:\n%s", round, h.MustCli("network", "status"))
		}
		want(t, h.MustCli("network", "status"), "State: ready", "Networks: remora")
		h.MustCli("network", "reset", "--yes")
		want(t, h.MustCli("network", "status"), "State: off")
		is(t, "interfaces of ours", h.Must("sh", "-c", "ip -o link | grep -c rm- || true"), "0")
	}
}

// TestNetworkNowhere: a host that no other could reach says so, and is reset without a launch that cannot be.
func TestNetworkNowhere(t *testing.T) {
	l := newLab(t, append([]testenv.Need{testenv.Nftables}, engine...)...)
	h := l.Host(t, "h1")
	h.Remora("")
	want(t, h.Fails(l.Remora, "network", "launch", "--no-password"), "no address at which another could reach it")
	got := h.MustCli("network", "status")
	want(t, got, "State: stopped", "Problem:")
	if strings.Contains(got, "Range") {
		t.Errorf("what is not known is told:\n%s", got)
	}
	h.MustCli("network", "reset", "--yes")
	want(t, h.MustCli("network", "status"), "State: off")
}
