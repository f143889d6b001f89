package e2e

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestUndoOfDockerRemove: what "docker volume rm" removed is there again for the engine, with
// its data, and what is protected it cannot remove.
func TestUndoOfDockerRemove(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	h.MustDocker("volume", "create", "-d", "remora", "db")
	h.MustDocker("run", "--rm", "--network=none", "-v", "db:/db", "bb:1", "sh", "-c", "echo rows > /db/t")
	h.MustDocker("volume", "rm", "db")
	is(t, "volumes after rm", h.MustDocker("volume", "ls", "-q"), "")

	want(t, h.MustCli("undo"), "db", "in ")
	is(t, "undo", h.MustCli("undo", "db"), "db")
	want(t, h.MustDocker("volume", "ls"), "remora", "db")
	is(t, "what was in it", h.MustDocker("run", "--rm", "--network=none", "-v", "db:/db", "bb:1", "cat", "/db/t"), "rows")

	h.MustCli("volume", "protect", "db")
	want(t, h.Fails("docker", "volume", "rm", "db"), "protected; to remove it: remora volume unprotect --pool remora db")
	is(t, "it is still there", h.MustDocker("run", "--rm", "--network=none", "-v", "db:/db", "bb:1", "cat", "/db/t"), "rows")
	h.MustCli("volume", "unprotect", "db")
	h.MustDocker("volume", "rm", "db")
	is(t, "volumes after the end", h.MustDocker("volume", "ls", "-q"), "")
}

// TestPrune asks a real engine what its containers have, stopped ones too.
func TestPrune(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	for _, name := range []string{"stopped", "running", "free"} {
		h.MustDocker("volume", "create", "-d", "remora", "--label", "of="+name, name)
	}
	h.MustDocker("volume", "create", "local")
	h.MustDocker("create", "--name", "halted", "--network=none", "-v", "stopped:/data", "bb:1", "true")
	h.MustDocker("run", "-d", "--name", "alive", "--network=none", "-v", "running:/data", "bb:1", "sleep", "1000")
	h.MustCli("volume", "create", "unheard")

	is(t, "by label", h.MustCli("volume", "prune", "--yes", "--label", "of=stopped"), "")
	is(t, "by age", h.MustCli("volume", "prune", "--yes", "--older", "1h"), "")
	is(t, "by label", h.MustCli("volume", "prune", "--yes", "--label", "of"), "free")
	is(t, "the rest", h.MustCli("volume", "prune", "--yes"), "unheard")
	is(t, "volumes left", h.MustCli("volume", "ls", "-q"), "running\nstopped")
	h.MustDocker("rm", "-f", "halted", "alive")
	is(t, "without their containers", h.MustCli("volume", "prune", "--yes"), "running\nstopped")
	is(t, "what is the engine's own", h.MustDocker("volume", "ls", "-q"), "local")
	is(t, "undo", h.MustCli("undo", "running"), "running")
}

// TestPruneAsksPodman does the same with podman, which answers only where it is asked to.
func TestPruneAsksPodman(t *testing.T) {
	t.Parallel()
	l := newLab(t, testenv.Podman)
	h := l.Host(t, "h1")
	h.Remora("")
	pod := podman(t, h)
	pod("import", "-q", l.Image, lab.ImageName)
	for _, name := range []string{"stopped", "free"} {
		pod("volume", "create", "--driver", "remora", name)
	}
	pod("create", "--name", "halted", "--network=none", "-v", "stopped:/data", lab.ImageName, "true")

	want(t, h.Fails(l.Remora, "volume", "prune", "--yes"), `podman has the pool "remora" as a volume driver, and does not listen at /run/podman/podman.sock`)
	p := h.Start([]string{"PODMAN_IGNORE_CGROUPSV1_WARNING=1"}, "podman", "--root=/var/lib/docker/podman", "--runroot=/run/podman",
		"--storage-driver=vfs", "system", "service", "--time=0", "unix:///run/podman/podman.sock")
	h.Wait(p, time.Minute, "podman's socket", func() error {
		_, err := h.Cli("volume", "prune", "--dry-run")
		return err
	})
	is(t, "unused", h.MustCli("volume", "prune", "--yes"), "free")
	pod("rm", "halted")
	is(t, "without its container", h.MustCli("volume", "prune", "--yes"), "stopped")
}
