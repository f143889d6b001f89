package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

const nearTOML = "[repository.near]\nurl = \"/var/lib/docker/near\"\npassword_file = \"/etc/remora/near.password\"\n"

// withRepository starts a daemon and an engine in a host, with a repository "near".
func withRepository(h *lab.Host, config string) *lab.Process {
	h.Write("/etc/remora/near.password", "correct horse battery staple\n")
	h.Must("chmod", "0600", "/etc/remora/near.password")
	p := h.Remora(config + nearTOML)
	h.Dockerd()
	h.MustCli("backup", "init", "near")
	return p
}

// TestConvoysWay: an engine makes a volume of a backup by an option, and a container finds in it
// what another wrote.
func TestConvoysWay(t *testing.T) {
	t.Parallel()
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...)
	h := l.Host(t, "h1")
	withRepository(h, "[pool.snap]\ndriver = \"btrfs\"\n[pool.remora]\n")
	h.MustDocker("volume", "create", "-d", "snap", "db")
	writes(h, "db", "t", "one")
	h.MustCli("backup", "create", "--pool", "snap", "db")
	id := h.MustCli("backup", "ls", "-q", "db")
	writes(h, "db", "t", "two")
	h.MustCli("backup", "create", "--pool", "snap", "db")

	h.MustDocker("volume", "create", "-d", "snap", "-o", "backup=near/db", "newest")
	is(t, "the newest", reads(h, "newest", "t"), "two")
	h.MustDocker("volume", "create", "-d", "remora", "-o", "backup=near/"+id, "by-id")
	is(t, "by its ID, in another pool", reads(h, "by-id", "t"), "one")
	want(t, h.Fails("docker", "volume", "create", "-d", "snap", "-o", "backup=near/nothing", "bad"), `volume "bad"`, "no backup has this ID")
	want(t, h.Fails("docker", "volume", "create", "-d", "snap", "-o", "backup=far/db", "bad"), `repository "far": not found, there are: near`)
	if out := h.MustDocker("volume", "ls", "-q"); strings.Contains(out, "bad") {
		t.Errorf("volumes are %s", out)
	}

	// In place, what was there is in the trash, with its snapshots; a container keeps it from being done.
	h.MustCli("snapshot", "create", "--pool", "snap", "db", "s1")
	h.MustDocker("run", "-d", "--name", "user", "--network=none", "-v", "db:/data", "bb:1", "sleep", "1000")
	h.MustDocker("create", "--name", "idle", "--network=none", "-v", "db:/data", "bb:1", "true")
	list := h.MustCli("volume", "ls", "--pool", "snap")
	if !regexp.MustCompile(`(?m)^snap +db .* seconds? ago +\(idle\),user +`).MatchString(list) {
		t.Errorf("the list does not show who has the volume, or its last backup:\n%s", list)
	}
	h.MustDocker("rm", "idle")
	want(t, h.Fails(l.Remora, "backup", "restore", id, "--in-place", "--yes"), `volume "db": mounted 1 times`)
	h.MustDocker("rm", "-f", "user")
	h.MustCli("backup", "restore", id, "--in-place", "--yes")
	is(t, "in place", reads(h, "db", "t"), "one")
	h.MustCli("undo", "--pool", "snap", "db", "--as", "before")
	is(t, "before", reads(h, "before", "t"), "two")
	want(t, h.MustCli("snapshot", "ls", "--pool", "snap", "before"), "s1")
}

// TestProofWithCheck: a check in a container without a network decides whether a backup is good,
// and nothing of it is left, also where the daemon is killed in it.
func TestProofWithCheck(t *testing.T) {
	t.Parallel()
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...)
	h := l.Host(t, "h1")
	config := func(command string) string {
		return fmt.Sprintf("[pool.snap]\ndriver = \"btrfs\"\n[verify.db]\nvolumes = [\"db\"]\nimage = \"bb:1\"\ncommand = %q\nmountpoint = \"/restored\"\ntimeout = \"20s\"\n", command)
	}
	p := withRepository(h, config("true"))
	h.MustDocker("volume", "create", "-d", "snap", "db")
	writes(h, "db", "t", "rows")
	h.MustCli("backup", "create", "--pool", "snap", "db")
	set := func(command string) {
		h.Write("/etc/remora/remora.toml", config(command)+nearTOML)
		h.MustCli("reload")
	}
	set(`echo checked > /restored/new; cat /restored/t; ls /sys/class/net; test "$(cat /restored/t)" = rows && test "$(ls /sys/class/net)" = lo`)
	want(t, h.MustCli("backup", "verify", "--restore", "db"), "near", "snap", "db", "ok")
	want(t, h.MustCli("status"), "PROVEN", "near", "ok")

	set("echo rows are missing; echo loudly >&2; exit 3")
	want(t, h.Fails(l.Remora, "backup", "verify", "--restore", "db"), `check "bb:1": ended with 3: `, "rows are missing", "loudly")
	want(t, h.MustCli("status"), "failed", "ended with 3")
	set("sleep 1000")
	h.Write("/etc/remora/remora.toml", strings.Replace(config("sleep 1000"), "20s", "1s", 1)+nearTOML)
	h.MustCli("reload")
	want(t, h.Fails(l.Remora, "backup", "verify", "--restore"), "has not ended within 1s")
	h.Write("/etc/remora/remora.toml", strings.Replace(config("true"), "bb:1", "nothing:1", 1)+nearTOML)
	h.MustCli("reload")
	want(t, h.Fails(l.Remora, "backup", "verify", "--restore"), `image "nothing:1": is not on this host; docker pull nothing:1`)

	clean := func() error {
		if out := h.MustDocker("ps", "-aq"); out != "" {
			return fmt.Errorf("containers are left: %s", out)
		}
		if out := h.MustCli("volume", "ls", "-q"); out != "db" {
			return fmt.Errorf("volumes are %s", out)
		}
		return nil
	}
	if err := clean(); err != nil {
		t.Error(err)
	}

	set("sleep 1000")
	go func() { _, _ = h.Cli("backup", "verify", "--restore", "db") }() // it is killed
	h.Wait(p, 20*time.Second, "the check", func() error {
		if out, err := h.Docker("ps", "-q"); out == "" || err != nil {
			return fmt.Errorf("runs not yet: %s, %w", out, err)
		}
		return nil
	})
	p.Kill()
	p = h.Remora(config("true") + nearTOML)
	h.Wait(p, 60*time.Second, "clean", clean)
	want(t, h.MustCli("backup", "verify", "--restore", "db"), "ok")
}
