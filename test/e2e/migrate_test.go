package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestAdoptKeepsTheDriversName: the plugin of another is stopped, a pool takes its name, and what
// the engine has of it, containers and Compose's volumes among it, goes on without a word to the
// engine.
func TestAdoptKeepsTheDriversName(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine...)
	h := l.Host(t, "h1")
	bin := filepath.Join(t.TempDir(), "plugin")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/remora-plugins/remora/test/e2e/plugin").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	old := h.Start(nil, bin, "-name", "local-persist", "-unix", "/run/docker/plugins/local-persist.sock", "-root", "/var/lib/docker/data")
	h.Remora("")
	h.Dockerd()
	compose := []string{
		"volume", "create", "-d", "local-persist", "--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.volume=images",
		"-o", "mountpoint=/var/lib/docker/data/shop_images", "shop_images",
	}
	h.MustDocker(compose...)
	writes(h, "shop_images", "a", "jpg")
	h.MustDocker("create", "--name", "web", "--network=none", "-v", "shop_images:/data", "bb:1", "cat", "/data/a")
	h.Write("/var/lib/docker/plugin-data/local-persist.json", `{"state":{"shop_images":"/var/lib/docker/data/shop_images"}}`)
	h.Write("/etc/remora/remora.toml", "[pool.remora]\n[pool.local-persist]\n")
	want(t, h.Fails(l.Remora, "reload"), "local-persist.sock", "another process listens there")
	is(t, "what still answers", reads(h, "shop_images", "a"), "jpg")
	noErr(t, old.Stop(10*time.Second))
	want(t, h.MustCli("reload"), "local-persist")
	want(t, h.MustCli("volume", "adopt", "local-persist", "--pool", "local-persist", "--yes"), "in place", "made")
	var told []struct{ Commands []string }
	noErr(t, json.Unmarshal([]byte(h.MustCli("volume", "adopt", "local-persist", "--pool", "local-persist", "--format", "json")), &told))
	if len(told) != 1 || len(told[0].Commands) != 0 {
		t.Errorf("the engine is to be told: %v", told)
	}
	is(t, "the container of before", h.MustDocker("start", "-a", "web"), "jpg")
	h.MustDocker(compose...) // as "docker compose up" does again
	want(t, h.MustDocker("volume", "inspect", "shop_images"), `"Driver": "local-persist"`, `"com.docker.compose.project": "shop"`, "/var/lib/docker/data/shop_images")
	h.MustDocker("rm", "web")
	h.MustDocker("volume", "rm", "shop_images")
	is(t, "what the removal left", h.Must("cat", "/var/lib/docker/data/shop_images/a"), "jpg")
	h.MustDocker("volume", "create", "-d", "local-persist", "-o", "mountpoint=/var/lib/docker/data/shop_images", "images")
	is(t, "made again", reads(h, "images", "a"), "jpg")
}

// TestSshfsTutorial is the walk of the well-known plugin with its password, which is then not
// shown; first with a volume that its own state file has.
func TestSshfsTutorial(t *testing.T) {
	t.Parallel()
	l := newLab(t, append([]testenv.Need{testenv.Sshfs}, engine...)...)
	h := l.Host(t, "h1")
	passwordServer(t, h)
	h.Must("mkdir", "-p", "/var/lib/docker/remote")
	h.Write("/var/lib/docker/remote/hello", "world\n")
	h.Remora("[pool.sshfs]\ndriver = \"sshfs\"\n")
	h.Dockerd()
	h.Write("/var/lib/docker/plugins/sshfs-state.json", `{"taken":{"Password":"`+password+`","Sshcmd":"root@127.0.0.1:/var/lib/docker/remote","Port":"2222","Options":["allow_other"],"Mountpoint":"/mnt/volumes/1ae7"}}`)

	want(t, h.MustCli("volume", "adopt", "sshfs"), "taken", "definition", "new")
	want(t, h.MustCli("volume", "adopt", "sshfs", "--yes"), "made")
	told := h.Must("sh", "-c", "$0 volume adopt sshfs 2>&1 >/dev/null", l.Remora)
	if strings.Contains(told, password) {
		t.Errorf("the password is shown: %s", told)
	}
	want(t, h.Fails("docker", "run", "--rm", "--network=none", "-v", "taken:/data", "bb:1", "ls", "/data"), "host key")
	ran := 0
	for line := range strings.Lines(told) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "ssh-keyscan ") || strings.HasPrefix(line, "docker ") {
			h.Must("sh", "-c", line)
			ran++
		}
	}
	if ran == 0 {
		t.Errorf("there is no command in: %s", told)
	}
	is(t, "what was taken over", h.MustDocker("run", "--rm", "--network=none", "-v", "taken:/data", "bb:1", "ls", "/data"), "hello")
	if text := h.MustDocker("volume", "inspect", "taken"); strings.Contains(text, password) {
		t.Errorf("the password is shown: %s", text)
	}

	h.Write("/run/password", password)
	h.Must("sh", "-c", `docker volume create -d sshfs --name sshvolume -o sshcmd=root@127.0.0.1:/var/lib/docker/remote -o password=$(cat /run/password) -o port=2222`)
	want(t, h.MustDocker("volume", "ls"), "sshfs", "sshvolume")
	is(t, "ls", h.MustDocker("run", "--rm", "--network=none", "-v", "sshvolume:/data", "bb:1", "ls", "/data"), "hello")
	writes(h, "sshvolume", "new", "line")
	is(t, "on the server", h.Must("cat", "/var/lib/docker/remote/new"), "line")
	is(t, "by the other volume", reads(h, "taken", "new"), "line")
	h.MustDocker("volume", "rm", "sshvolume", "taken")
	is(t, "what the removal left", h.Must("cat", "/var/lib/docker/remote/new"), "line")
	if left := h.Mounts("/run/remora/mounts/"); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
}

// TestAdoptRexray: a disk that is mounted where REX-Ray had it is taken over in place, and without
// the disk a container does not start.
func TestAdoptRexray(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine...)
	h := l.Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	h.Must("mkdir", "-p", "/var/lib/docker/rexray/dbdata", "/var/lib/docker/rexray/away")
	h.Must("mount", "-t", "tmpfs", "none", "/var/lib/docker/rexray/dbdata")
	h.Must("mkdir", "/var/lib/docker/rexray/dbdata/data", "/var/lib/docker/rexray/dbdata/lost+found")
	h.Write("/var/lib/docker/rexray/dbdata/data/t", "rows\n")
	want(t, h.Fails(l.Remora, "volume", "adopt", "rexray", "/var/lib/docker/rexray", "--yes"), "no disk is mounted at /var/lib/docker/rexray/away")
	is(t, "volumes", h.MustCli("volume", "ls", "-q"), "dbdata")
	h.MustDocker("volume", "create", "-d", "remora", "dbdata")
	is(t, "the data, and not what is beside it", h.MustDocker("run", "--rm", "--network=none", "-v", "dbdata:/data", "bb:1", "ls", "/data"), "t")

	h.Must("umount", "/var/lib/docker/rexray/dbdata")
	want(t, h.Fails("docker", "run", "--rm", "--network=none", "-v", "dbdata:/data", "bb:1", "touch", "/data/lost"), "nothing is mounted at /var/lib/docker/rexray/dbdata")
	is(t, "below the disk", h.Must("ls", "-A", "/var/lib/docker/rexray/dbdata"), "")
	h.MustDocker("volume", "rm", "dbdata")
}

// password is that of root on the test's server, and shadow what it knows of it (crypt(5)).
const (
	password = "correct-horse"
	shadow   = "$6$remoratest$C7CZ5LRT1RGrPFipj3QyMouvIe9HwU3nStccwE8UeooKA7etnUpTX9.J3jj7MwMfDgi5LbypHkGVyc7p1s2lr/"
)

// passwordServer starts sshd on port 2222 of the host, with users of its own.
func passwordServer(t *testing.T, h *lab.Host) {
	t.Helper()
	h.Must("mkdir", "-p", "/run/sshd", "/run/keys")
	h.Must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/keys/host")
	h.Write("/run/keys/passwd", "root:x:0:0:root:/run:/bin/sh\nsshd:x:65533:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n")
	h.Must("chmod", "0644", "/run/keys/passwd")
	h.Write("/run/keys/shadow", "root:"+shadow+":19000:0:99999:7:::\n")
	h.Write("/run/keys/sshd_config", strings.Join([]string{
		"ListenAddress 127.0.0.1", "Port 2222", "HostKey /run/keys/host", "PermitRootLogin yes", "PasswordAuthentication yes",
		"StrictModes no", "UsePAM no", "PidFile none", "Subsystem sftp internal-sftp", "",
	}, "\n"))
	server := h.Start(nil, "unshare", "--mount", "sh", "-c",
		"mount --bind /run/keys/passwd /etc/passwd && mount --bind /run/keys/shadow /etc/shadow && exec /usr/sbin/sshd -D -e -f /run/keys/sshd_config")
	h.Wait(server, 10*time.Second, "sshd", func() error {
		_, err := h.Run("ssh-keyscan", "-p", "2222", "127.0.0.1")
		return err
	})
}
