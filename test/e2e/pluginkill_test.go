package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestPluginKills kills the daemon in the middle of each verb, at any point, and wants the next one to find a plugin that is
// whole, or none: running if it is enabled, of one version alone, and nothing left of what was cut off.
func TestPluginKills(t *testing.T) {
	h := newPluginHost(t)
	const v1, v2, disk = reg + "/rs/p:v1", reg + "/rs/p:v2", reg + "/rs/disk"
	verbs := []struct {
		name string
		args []string
		// before and after are what the plugin may be when the verb was cut off: "" is not there.
		before, after string
	}{
		{"install", []string{"plugin", "install", "--grant-all-permissions", "--disable", "--alias", disk, v1}, "", "off 1"},
		{"enable", []string{"plugin", "enable", disk}, "off 1", "on 1"},
		{"disable", []string{"plugin", "disable", disk}, "on 1", "off 1"},
		{"upgrade", []string{"plugin", "upgrade", "--grant-all-permissions", disk, v2}, "off 1", "off 2"},
		{"push", []string{"plugin", "push", disk}, "off 2", "off 2"},
		{"remove", []string{"plugin", "rm", disk}, "off 2", ""},
	}
	chance := rand.New(rand.NewPCG(testenv.Seed(t), 0)) //nolint:gosec // a test's dice
	for round := range testenv.Rounds(3) {
		for _, v := range verbs {
			is(t, "before "+v.name, h.is(disk), v.before)
			done := make(chan error, 1)
			go func() { _, err := h.Cli(v.args...); done <- err }()
			time.Sleep(time.Duration(chance.Int64N(int64(500 * time.Millisecond))))
			h.remora.Kill()
			err := <-done
			h.again()
			got := h.is(disk)
			if got != v.before && got != v.after || err == nil && got != v.after {
				t.Fatalf("round %d: after %s was cut off (%v) it is %q, want %q or %q", round, v.name, err, got, v.before, v.after)
			}
			if got != v.after || v.name == "push" {
				h.MustCli(v.args...) // it may be repeated
			}
			is(t, "after "+v.name, h.is(disk), v.after)
		}
	}
	h.MustCli("plugin", "install", "--grant-all-permissions", "--disable", disk) // what was pushed is whole
	h.MustCli("plugin", "rm", disk)
	if left := h.Must("sh", "-c", "find /var/lib/remora/plugins/plugins /var/lib/remora/plugins/tmp /var/lib/remora/plugins/ingest /run/docker/plugins -mindepth 1 ! -name 'remora.sock'"); left != "" {
		t.Errorf("left: %s", left)
	}
	for _, m := range h.Mounts("/var/lib/remora/plugins") {
		t.Errorf("mount left: %s", m)
	}
	if left := h.Must("runc", "--root", "/run/remora/plugins/runc", "list", "-q"); left != "" {
		t.Errorf("containers left: %s", left)
	}
}

// is tells whether a plugin is enabled, and of which version; one that is enabled has to run soon.
func (h pluginHost) is(name string) string {
	h.t.Helper()
	var p control.Plugin
	for end := time.Now().Add(lab.Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !strings.Contains(h.MustCli("plugin", "ls"), name+":latest") {
			return ""
		}
		p = h.inspect(name)
		version := p.Config.Description[len(p.Config.Description)-1:]
		switch {
		case p.Enabled && p.State == "running":
			return "on " + version
		case !p.Enabled && p.PID == 0:
			return "off " + version
		}
	}
	h.t.Fatalf("plugin %s is %s, enabled %v, process %d", name, p.State, p.Enabled, p.PID)
	return ""
}
