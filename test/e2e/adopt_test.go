package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestAdoptDockerLocal takes over volumes that a real engine made, by the commands that are
// printed, and containers find their data.
func TestAdoptDockerLocal(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine...)
	h := l.Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	for _, name := range []string{"db", "busy", "kept"} {
		h.MustDocker("volume", "create", name)
		writes(h, name, "t", "rows-of-"+name)
	}
	h.MustDocker("run", "--rm", "--network=none", "-v", "db:/data", "bb:1", "sh", "-c", "mkdir /data/d && echo x > /data/d/x && chown -R 70:71 /data/d && chmod 700 /data/d")
	h.MustDocker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/run", "bound")
	h.MustDocker("volume", "create", "-o", "type=nfs", "-o", "o=addr=192.0.2.7,password=hunter2", "-o", "device=:/x", "remote")
	h.MustDocker("run", "-d", "--name", "alive", "--network=none", "-v", "busy:/data", "bb:1", "sleep", "1000")

	dry := h.Fails(l.Remora, "volume", "adopt", "docker-local")
	want(t, dry, "nothing was done", `volume "busy": a container that runs has it`, `bind mount of the directory "/run"`, `a mount of type "nfs"`)
	if strings.Contains(dry, "hunter2") {
		t.Errorf("a password is shown: %s", dry)
	}
	is(t, "volumes after the dry run", h.MustCli("volume", "ls", "-q"), "")

	want(t, h.MustCli("volume", "adopt", "docker-local", "--yes", "db"), "copy", "made")
	want(t, h.Fails("docker", "volume", "create", "-d", "remora", "db"), "local")
	told := commands(t, h, "db")
	want(t, strings.Join(told, "\n"), "docker volume rm db   # deletes the original", "docker volume create -d remora db")
	for _, command := range told {
		h.Must("sh", "-c", command)
	}
	want(t, h.MustDocker("volume", "inspect", "db"), `"Driver": "remora"`)
	is(t, "the copy", reads(h, "db", "t"), "rows-of-db")
	is(t, "owner and mode", h.MustDocker("run", "--rm", "--network=none", "-v", "db:/data", "bb:1", "stat", "-c", "%u:%g %a", "/data/d"), "70:71 700")
	want(t, h.Fails(l.Remora, "volume", "adopt", "docker-local", "--root", "/var/lib/docker/volumes", "db"), "no such file or directory")

	h.MustCli("volume", "adopt", "docker-local", "--in-place", "--yes", "--rename", "kept=kept2", "kept")
	told = commands(t, h, "--in-place", "--rename", "kept=kept2", "kept")
	is(t, "what to tell an engine that knows the pool, and asks it", strings.Join(told, "\n"), "")
	is(t, "in place", reads(h, "kept2", "t"), "rows-of-kept")
	h.MustDocker("volume", "rm", "kept2")
	is(t, "what the removal left", reads(h, "kept", "t"), "rows-of-kept")
	is(t, "what was refused", reads(h, "busy", "t"), "rows-of-busy")
}

// commands adopts again, of what exists already, and returns what the engine is to be told.
func commands(t *testing.T, h *lab.Host, args ...string) []string {
	t.Helper()
	var all []struct {
		Result   string
		Commands []string
	}
	out := h.MustCli(append([]string{"volume", "adopt", "docker-local", "--format", "json"}, args...)...)
	noErr(t, json.Unmarshal([]byte(out), &all))
	if len(all) != 1 || all[0].Result != "exists (same)" {
		t.Fatalf("adopted again: %s", out)
	}
	return all[0].Commands
}
