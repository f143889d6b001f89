package e2e

import "testing"

// TestUndoOfDockerRemove: what "docker volume rm" removed is there again for the engine, with
// its data, and what is protected it cannot remove.
func TestUndoOfDockerRemove(t *testing.T) {
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
