package e2e

import (
	"strings"
	"testing"
)

// TestPluginThatIsGone takes a pool away that an engine has used: the engine goes on asking for it, and the doctor
// says so.
func TestPluginThatIsGone(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine...)
	h := l.Host(t, "h1")
	h.Remora("version = 1\n[pool.remora]\n[pool.fast]\n[pool.slow]\n")
	h.Dockerd()
	h.MustDocker("volume", "create", "-d", "fast", "v")
	h.MustDocker("volume", "create", "-d", "remora", "w")
	if found, _ := h.Cli("doctor"); strings.Contains(found, "remembers plugin") {
		t.Errorf("doctor complains of pools that are there:\n%s", found)
	}

	h.Write("/etc/remora/remora.toml", "version = 1\n[pool.remora]\n")
	h.MustCli("reload")
	found, _ := h.Cli("doctor")
	want(t, found, "warn", "remembers plugin fast, which is gone")
	if strings.Contains(found, "remembers plugin slow") || strings.Contains(found, "remembers plugin remora") {
		t.Errorf("doctor complains of a pool that no engine has used, or of one that is there:\n%s", found)
	}
}
