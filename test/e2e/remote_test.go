package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// share is a server that a test starts in its host, and the options with which a user of the
// driver local would name what is on it.
type share struct {
	needs []testenv.Need
	env   []string
	serve []string
	opts  []string
	// mode is what stands behind the volume in -v: the root of a bucket cannot be given a mode,
	// which the engine does to a volume that is empty.
	mode string
	// ready is a command that succeeds when the server serves, and down what ends with the server.
	ready, down string
}

const listens = "exec 3<>/dev/tcp/127.0.0.1/8099"

// gluster makes its volume where there is none, and starts the bricks of one that there is. A brick that was
// killed leaves the file with its process ID, which may be another's when the server is back: it goes too.
const gluster = `ip addr replace 10.77.0.1/24 dev lo
	for d in /var/lib/glusterd /var/log/glusterfs; do mountpoint -q $d || mount -t tmpfs gluster $d; done
	(until gluster --mode=script volume list; do sleep 0.1; done
	gluster --mode=script volume info dir || gluster --mode=script volume create dir 10.77.0.1:/run/served/brick force
	gluster --mode=script volume start dir force) >/dev/null 2>&1 &
	exec glusterd -N --log-level WARNING`

var shares = map[string]share{
	"davfs": {
		[]testenv.Need{testenv.Rclone, testenv.Davfs},
		[]string{"RCLONE_PASS=hunter2"},
		[]string{"rclone", "serve", "webdav", "/run/served", "--config", "", "--addr", "127.0.0.1:8099", "--user", "me", "--dir-cache-time", "0s"},
		[]string{"type=davfs", "device=http://127.0.0.1:8099/dir", "o=username=me,gui_optimize=0,retry=1,max_retry=2,dir_refresh=0", "password_file=secret"},
		"", listens, "",
	},
	"rclone": {
		[]testenv.Need{testenv.Rclone},
		[]string{"RCLONE_PASS=hunter2"},
		[]string{"rclone", "serve", "webdav", "/run/served", "--config", "", "--addr", "127.0.0.1:8099", "--user", "me", "--dir-cache-time", "0s"},
		[]string{"type=rclone", "device=:webdav:dir", "o=contimeout=2s,low-level-retries=1", "webdav-url=http://127.0.0.1:8099", "username=me", "password_file=secret"},
		"", listens, "",
	},
	"s3fs": {
		[]testenv.Need{testenv.S3, testenv.S3fs},
		nil,
		[]string{"versitygw", "--port", "127.0.0.1:8099", "--access", "me", "--secret", "hunter2", "posix", "/run/served"},
		[]string{"type=s3fs", "device=dir", "o=url=http://127.0.0.1:8099,use_path_request_style,retries=1,connect_timeout=3", "username=me", "password_file=secret"},
		":nocopy", listens, "",
	},
	"glusterfs": {
		[]testenv.Need{testenv.Glusterfs},
		nil,
		[]string{"sh", "-c", gluster},
		[]string{"type=glusterfs", "device=10.77.0.1:/dir"},
		"", "gluster --mode=script volume status dir | grep -q ' Y '", "kill -9 $(cat /run/gluster/vols/dir/*.pid); rm /run/gluster/vols/dir/*.pid",
	},
}

// TestServerKilledUnderContainers: containers use what mount(8) and its like mount, by options as
// the driver local has them. The server is killed under one that runs: the engine and the daemon
// answer at once, a new container is refused in seconds with the reason, nothing is written to the
// host, and when the server is back the container writes on.
func TestServerKilledUnderContainers(t *testing.T) {
	t.Parallel()
	for name, s := range shares {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serverKilled(t, newLab(t, append(s.needs, engine...)...).Host(t, "h1"), s)
		})
	}
}

func serverKilled(t *testing.T, h *lab.Host, s share) {
	serve := func() *lab.Process {
		p := h.Start(s.env, s.serve[0], s.serve[1:]...)
		h.Wait(p, 30*time.Second, s.serve[0], func() error {
			_, err := h.Run("bash", "-c", s.ready)
			return err
		})
		return p
	}
	h.Must("mkdir", "-p", "/run/served/dir", "/run/bare", "/run/gluster")
	server := serve()
	h.Remora("version = 1\n[pool.share]\ndriver = \"mount\"\n")
	h.Dockerd()
	h.Must("sh", "-c", "umask 077 && mkdir -p /var/lib/remora/mount/share/secrets && printf hunter2 > /var/lib/remora/mount/share/secrets/secret")
	create := []string{"volume", "create", "-d", "share"}
	for _, o := range s.opts {
		create = append(create, "-o", o)
	}
	h.MustDocker(append(create, "files")...)
	h.MustDocker("run", "-d", "--name", "app", "--network=none", "-v", "files:/data"+s.mode, lab.ImageName, "sleep", "10000")
	h.MustDocker("exec", "app", "sh", "-c", "echo before > /data/f")
	h.Wait(server, 30*time.Second, "the other container", func() error {
		got, err := h.Container("files", "", "cat /data/f")
		if err == nil && got != "before" {
			err = fmt.Errorf("it reads %q", got)
		}
		return err
	})
	for _, shown := range []string{h.MustDocker("volume", "inspect", "files"), h.Must("cat", "/proc/self/mountinfo")} {
		if strings.Contains(shown, "hunter2") {
			t.Errorf("the password is shown: %s", shown)
		}
	}

	server.Kill()
	h.Must("sh", "-c", s.down)
	quick := func(what string, limit time.Duration, f func()) {
		t.Helper()
		start := time.Now()
		f()
		if took := time.Since(start); took > limit {
			t.Errorf("%s took %v without the server, of at most %v", what, took, limit)
		}
	}
	const moment = 30 * time.Second // of a busy machine; what hangs does so for a minute and more
	quick("docker ps", moment, func() { want(t, h.MustDocker("ps", "--format", "{{.Names}}"), "app") })
	quick("docker volume ls", moment, func() { want(t, h.MustDocker("volume", "ls", "-q"), "files") })
	quick("remora status", moment, func() { _, _ = h.Cli("status") })
	quick("docker run", time.Minute, func() {
		_, err := h.Container("files", "", "echo started")
		if err == nil {
			t.Error("a container starts without the server")
			return
		}
		want(t, err.Error(), "connection refused")
	})
	quick("docker exec", time.Minute, func() { _, _ = h.Docker("exec", "app", "sh", "-c", "echo lost > /data/lost") })
	h.Must("sh", "-c", "mount --bind /run/remora/mounts/share /run/bare")
	is(t, "what is below the mountpoint", h.Must("find", "/run/bare", "-mindepth", "2"), "")
	if refused := h.Fails("sh", "-c", "echo x > /run/bare/files/f"); !strings.Contains(refused, "Operation not permitted") && !strings.Contains(refused, "nonexistent") {
		t.Errorf("a write below the mountpoint: %s", refused)
	}
	h.Must("umount", "/run/bare")

	server = serve()
	h.Wait(server, time.Minute, "the container's volume", func() error {
		_, err := h.Docker("exec", "app", "sh", "-c", "echo after > /data/g && cat /data/g")
		return err
	})
	h.Wait(server, time.Minute, "a new container", func() error {
		got, err := h.Container("files", "", "cat /data/f /data/g")
		if err == nil && got != "before\nafter" {
			err = fmt.Errorf("it reads %q", got)
		}
		return err
	})
	h.MustDocker("rm", "-f", "app")
	// What the container wrote without the server may be in rclone's cache alone: the volume is not removed before it is sent.
	h.Wait(server, 2*time.Minute, "the removal", func() error {
		_, err := h.Docker("volume", "rm", "files")
		if err != nil && strings.Contains(err.Error(), "has not sent") {
			_, _ = h.Container("files", "", "sleep 10") // mounted once more, it is
		}
		return err
	})
	is(t, "mounts left", len(h.Mounts("/run/remora/mounts/")), 0)
	is(t, "mountpoints left", h.Must("ls", "-A", "/run/remora/mounts/share"), "")
}
