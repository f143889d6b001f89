package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestNetworkWithoutEngine: each verb that needs the engine says, while that is stopped, that it does not run and what to do, in a line.
func TestNetworkWithoutEngine(t *testing.T) {
	t.Parallel()
	l := newLab(t, append([]testenv.Need{testenv.Nftables}, engine...)...)
	h := l.Host(t, "h1")
	l.Switch(t).Wire(h)
	h.Write("/etc/remora/password", networkPassword+"\n")
	h.Remora("")
	h.MustCli("network", "launch", "--password-file", "/etc/remora/password")
	if !within(10*time.Second, func() bool { // it was looked for
		_, err := h.Cli("network", "expose")
		return err != nil && strings.Contains(err.Error(), "does not run")
	}) {
		t.Error("expose does not say that the engine does not run")
	}
	// Where there never was one, nothing has to be removed from it.
	h.MustCli("network", "reset", "--yes")
	want(t, h.MustCli("network", "status"), "State: off")
	h.MustCli("network", "launch", "--password-file", "/etc/remora/password")
	for _, verb := range []string{"there never was one", "it was stopped"} {
		for _, args := range [][]string{{"attach", "web"}, {"detach", "web"}, {"reset", "--yes"}, {"expose"}, {"dns-args"}} {
			if verb == "there never was one" && args[0] == "reset" {
				continue
			}
			if verb == "it was stopped" && (args[0] == "expose" || args[0] == "dns-args") {
				h.MustCli(append([]string{"network"}, args...)...) // they need what the engine made, and not the engine
				continue
			}
			text := h.Fails(l.Remora, append([]string{"network"}, args...)...)
			t.Log(text)
			if strings.Contains(text, "dial") || strings.Contains(text, "http:") {
				t.Errorf("%s, %s: Go's own error is shown: %s", verb, args[0], text)
			}
			want(t, text, "engine at /run/docker.sock: it does not run", "systemctl start docker")
		}
		if verb == "it was stopped" {
			break
		}
		e := h.DockerdWithNetworks()
		if !within(20*time.Second, func() bool { return has(h, "remora") }) {
			t.Fatal("no network")
		}
		h.MustDocker("run", "-d", "--name", "web", lab.ImageName, "sleep", "1000")
		noErr(t, e.Stop(30*time.Second))
	}
	h.MustCli("network", "reset", "--yes", "--force")
	want(t, h.MustCli("network", "status"), "State: off")
}
