package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// reads runs a container that prints a file of a volume.
func reads(h *lab.Host, volume, file string) string {
	return h.MustDocker("run", "--rm", "--network=none", "-v", volume+":/data", "bb:1", "cat", "/data/"+file)
}

// writes runs a container that writes a line to a file of a volume.
func writes(h *lab.Host, volume, file, line string) {
	h.MustDocker("run", "--rm", "--network=none", "-v", volume+":/data", "bb:1", "sh", "-c", "echo "+line+" > /data/"+file)
}

// TestSnapshotsUnderContainers: a pool with nothing but a driver's name has snapshots, and a
// container that writes all the while does not hinder one.
func TestSnapshotsUnderContainers(t *testing.T) {
	t.Parallel()
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...)
	h := l.Host(t, "h1")
	h.Remora("[pool.snap]\ndriver = \"btrfs\"\n")
	h.Dockerd()
	h.MustDocker("volume", "create", "-d", "snap", "-o", "size=64m", "db")
	h.MustDocker("run", "-d", "--name", "writer", "--network=none", "-v", "db:/data", "bb:1", "sh", "-c",
		"i=0; while true; do i=$((i+1)); echo $i >> /data/log; done")
	writes(h, "db", "t", "before")
	h.MustCli("snapshot", "create", "--pool", "snap", "db", "s1")
	writes(h, "db", "t", "after")
	want(t, h.MustCli("snapshot", "ls", "--pool", "snap", "db"), "s1")
	want(t, h.Fails(l.Remora, "volume", "rollback", "--pool", "snap", "--yes", "db", "s1"), `volume "db"`, "mounted")

	h.MustDocker("volume", "create", "-d", "snap", "-o", "from=db@s1", "clone")
	is(t, "a clone of the snapshot", reads(h, "clone", "t"), "before")
	numbered(t, reads(h, "clone", "log"))

	h.MustDocker("rm", "-f", "writer")
	h.MustCli("volume", "rollback", "--pool", "snap", "--yes", "db", "s1")
	is(t, "after the rollback", reads(h, "db", "t"), "before")
	is(t, "what the snapshot has", reads(h, "db", "log"), reads(h, "clone", "log"))

	out, err := h.Docker("run", "--rm", "--network=none", "-v", "db:/data", "bb:1", "dd", "if=/dev/urandom", "of=/data/big", "bs=1M", "count=100")
	if err == nil {
		t.Errorf("100 MiB fit into 64: %s", out)
	}
	h.MustCli("volume", "resize", "--pool", "snap", "db", "200m")
	h.MustDocker("run", "--rm", "--network=none", "-v", "db:/data", "bb:1", "dd", "if=/dev/urandom", "of=/data/big", "bs=1M", "count=100")

	h.MustDocker("volume", "rm", "db")
	is(t, "undo", h.MustCli("undo", "db"), "db")
	is(t, "what was removed", reads(h, "db", "t"), "before")
	want(t, h.MustCli("snapshot", "ls", "--pool", "snap", "db"), "s1")
}

// numbered checks that a log has each number once, in order, and ends in a whole line.
func numbered(t *testing.T, log string) {
	t.Helper()
	lines := strings.Split(log, "\n")
	for i, line := range lines {
		if line != fmt.Sprint(i+1) && i < len(lines)-1 { // the last may be cut off, as by a power cut
			t.Fatalf("line %d of the snapshot's log is %q", i+1, line)
		}
	}
	if len(lines) < 2 {
		t.Errorf("the snapshot's log is %q", log)
	}
}

// TestLoopUnderContainers: an image file serves a container whose daemon is killed, is grown,
// and leaves no loop device behind.
func TestLoopUnderContainers(t *testing.T) {
	t.Parallel()
	h := newLab(t, append(slices.Clone(engine), testenv.Loop)...).Host(t, "h1")
	const config = "[pool.img]\ndriver = \"loop\"\n"
	p := h.Remora(config)
	h.Dockerd()
	h.MustDocker("volume", "create", "-d", "img", "-o", "size=300m", "-o", "fs=xfs", "small")
	want(t, h.MustDocker("volume", "ls"), "img", "small")
	want(t, h.Fails("docker", "volume", "create", "-d", "img", "-o", "fs=zfs", "bad"), `"zfs"`, "ext4")
	h.MustDocker("volume", "create", "-d", "img", "-o", "size=64m", "data")
	h.MustDocker("run", "-d", "--name", "alive", "--network=none", "-v", "data:/data", "bb:1", "sleep", "1000")
	h.MustDocker("exec", "alive", "sh", "-c", "echo bye > /data/hi; sync")
	if n := len(h.Mounts("/run/remora/mounts/img/")); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}

	p.Kill()
	h.MustDocker("exec", "alive", "sh", "-c", "echo still > /data/there")
	p = h.Remora(config)
	is(t, "a second container", reads(h, "data", "there"), "still")
	h.MustDocker("rm", "-f", "alive")
	is(t, "after the last", reads(h, "data", "hi"), "bye")
	out, err := h.Docker("run", "--rm", "--network=none", "-v", "data:/data", "bb:1", "dd", "if=/dev/urandom", "of=/data/big", "bs=1M", "count=100")
	if err == nil {
		t.Errorf("100 MiB fit into 64: %s", out)
	}
	h.MustDocker("run", "--rm", "--network=none", "-v", "data:/data", "bb:1", "rm", "/data/big")
	h.MustCli("volume", "resize", "--pool", "img", "data", "256m")
	h.MustDocker("run", "--rm", "--network=none", "-v", "data:/data", "bb:1", "dd", "if=/dev/urandom", "of=/data/big", "bs=1M", "count=100")
	is(t, "what was there", reads(h, "data", "hi"), "bye")

	if left := h.Mounts("/run/remora/mounts/img/"); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
	h.MustDocker("volume", "rm", "small", "data")
	want(t, h.MustCli("undo"), "data", "small")
	h.MustCli("trash", "empty", "--yes")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	for end := time.Now().Add(lab.Patience); ; time.Sleep(100 * time.Millisecond) {
		devices := h.Must("losetup", "-a")
		if !strings.Contains(devices, "/img/") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("loop devices are left: %s", devices)
		}
	}
}

// TestSshfsUnderContainers: the volume of the well-known tutorial, on a server with a key; and
// what becomes of a container whose mount dies.
func TestSshfsUnderContainers(t *testing.T) {
	t.Parallel()
	h := newLab(t, append(slices.Clone(engine), testenv.Sshfs)...).Host(t, "h1")
	h.Must("mkdir", "-p", "/run/sshd", "/run/keys", "/var/lib/docker/remote")
	for _, key := range []string{"host", "user"} {
		h.Must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/keys/"+key)
	}
	h.Write("/run/keys/sshd_config", strings.Join([]string{
		"ListenAddress 127.0.0.1", "Port 2222", "HostKey /run/keys/host", "AuthorizedKeysFile /run/keys/user.pub", "StrictModes no",
		"PermitRootLogin prohibit-password", "PasswordAuthentication no", "UsePAM no", "PidFile none", "Subsystem sftp internal-sftp", "",
	}, "\n"))
	server := h.Start(nil, "/usr/sbin/sshd", "-D", "-e", "-f", "/run/keys/sshd_config")
	h.Wait(server, 10*time.Second, "sshd", func() error {
		_, err := h.Run("ssh-keyscan", "-p", "2222", "127.0.0.1")
		return err
	})
	h.Remora("[pool.ssh]\ndriver = \"sshfs\"\n")
	h.Dockerd()
	create := func(name string, more ...string) []string {
		return append([]string{"volume", "create", "-d", "ssh", "-o", "sshcmd=root@127.0.0.1:/var/lib/docker/remote", "-o", "port=2222", "-o", "identity_file=/run/keys/user"}, append(more, name)...)
	}
	h.MustDocker(create("stranger")...)
	want(t, h.Fails("docker", "run", "--rm", "--network=none", "-v", "stranger:/data", "bb:1", "true"), `volume "stranger"`, "host key")
	want(t, h.Fails("docker", create("typo", "-o", "reconect=true")...), `"reconect"`, "reconnect")

	hostKey := strings.Join(strings.Fields(h.Must("cat", "/run/keys/host.pub"))[:2], " ")
	h.MustDocker(create("share", "-o", "host_key="+hostKey)...)
	writes(h, "share", "hi", "bye")
	is(t, "on the server", h.Must("cat", "/var/lib/docker/remote/hi"), "bye")
	h.MustDocker("run", "-d", "--name", "alive", "--network=none", "-v", "share:/data", "bb:1", "sleep", "1000")
	mountpoint := h.Mounts("/run/remora/mounts/ssh/")
	if len(mountpoint) != 1 {
		t.Fatalf("mounted at %q, want one place", mountpoint)
	}
	h.Must("pkill", "-9", "-x", "sshfs", "--ns", fmt.Sprint(server.PID()), "--nslist", "net")
	if out, err := h.Docker("exec", "alive", "sh", "-c", "echo lost > /data/lost"); err == nil {
		t.Errorf("a write to the dead mount went somewhere: %s", out)
	}
	is(t, "a new container", reads(h, "share", "hi"), "bye")
	h.MustDocker("rm", "-f", "alive")
	if left := h.Mounts("/run/remora/mounts/ssh/"); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
	if _, err := h.Run("test", "-e", "/var/lib/docker/remote/lost"); err == nil {
		t.Error("the write is on the server")
	}
	h.MustDocker("volume", "rm", "share", "stranger")
	is(t, "the server keeps what it has", h.Must("cat", "/var/lib/docker/remote/hi"), "bye")
}

// TestBackupUnderContainers: a database is backed up while its container writes, from a
// snapshot, and read by another container from the volume that is made of the backup.
func TestBackupUnderContainers(t *testing.T) {
	t.Parallel()
	h := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...).Host(t, "h1")
	h.Write("/etc/remora/near.password", "correct horse battery staple\n")
	h.Must("chmod", "0600", "/etc/remora/near.password")
	h.Remora("[pool.snap]\ndriver = \"btrfs\"\n[repository.near]\nurl = \"/var/lib/docker/near\"\npassword_file = \"/etc/remora/near.password\"\n")
	h.Dockerd()
	h.MustCli("backup", "init", "near")
	h.MustDocker("volume", "create", "-d", "snap", "db")
	writes(h, "db", "t", "rows")
	h.MustDocker("run", "-d", "--name", "writer", "--network=none", "-v", "db:/data", "bb:1", "sh", "-c",
		"i=0; while true; do i=$((i+1)); echo $i >> /data/log; done")
	h.MustCli("backup", "create", "--pool", "snap", "db")
	h.MustDocker("exec", "writer", "rm", "/data/t")
	id := strings.Fields(strings.Split(h.MustCli("backup", "ls", "db"), "\n")[1])[0]
	is(t, "snapshots left behind", len(strings.Split(h.MustCli("snapshot", "ls", "--pool", "snap", "db"), "\n")), 1)

	h.MustCli("backup", "restore", id, "--to", "copy")
	is(t, "in the copy", reads(h, "copy", "t"), "rows")
	numbered(t, reads(h, "copy", "log"))
	h.MustDocker("rm", "-f", "writer")
	h.MustCli("backup", "restore", id, "--in-place", "--yes")
	is(t, "in place", reads(h, "db", "t"), "rows")
	is(t, "the same", reads(h, "db", "log"), reads(h, "copy", "log"))
	want(t, h.MustCli("backup", "verify"), "1 backups, 0 damaged")
}
