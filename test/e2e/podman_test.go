package e2e

import (
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

const containersConf = `[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[engine.volume_plugins]
remora = "/run/docker/plugins/remora.sock"
[containers]
pids_limit = 0
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`

// podman returns a function that runs podman in a host, with storage of its own.
func podman(t *testing.T, h *lab.Host) func(args ...string) string {
	t.Helper()
	h.Write("/etc/containers/containers.conf", containersConf)
	h.Write("/etc/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	return func(args ...string) string {
		t.Helper()
		return h.Must("env", append([]string{
			"PODMAN_IGNORE_CGROUPSV1_WARNING=1", "podman", "--root=/var/lib/docker/podman", "--runroot=/run/podman", "--storage-driver=vfs",
		}, args...)...)
	}
}

// TestPodman is the classic flow on podman, whose client differs from dockerd's in most
// that a plugin can notice.
func TestPodman(t *testing.T) {
	t.Parallel()
	l := newLab(t, testenv.Podman)
	h := l.Host(t, "h1")
	r := h.Remora("")
	pod := podman(t, h)
	pod("import", "-q", l.Image, lab.ImageName)

	is(t, "create", pod("volume", "create", "--driver", "remora", "dbdata"), "dbdata")
	want(t, pod("volume", "ls"), "remora", "dbdata")
	pod("run", "--rm", "--network=none", "-v", "dbdata:/volume", lab.ImageName, "sh", "-c", "echo bye > /volume/hi")
	is(t, "mounts", mounts(t, h, "dbdata"), 0)

	pod("run", "-d", "--name", "c1", "--network=none", "-v", "dbdata:/volume", lab.ImageName, "sleep", "1000")
	pod("run", "-d", "--name", "c2", "--network=none", "-v", "dbdata:/volume", lab.ImageName, "sleep", "1000")
	r.Kill()
	h.Remora("")
	// Podman counts by itself and mounts once for both.
	is(t, "mounts", mounts(t, h, "dbdata"), 1)
	pod("rm", "-f", "-t", "0", "c1")
	is(t, "mounts", mounts(t, h, "dbdata"), 1)
	is(t, "what is read", pod("exec", "c2", "cat", "/volume/hi"), "bye")
	pod("rm", "-f", "-t", "0", "c2")
	is(t, "mounts", mounts(t, h, "dbdata"), 0)

	// What was made behind podman's back comes in by its reload.
	h.MustCli("volume", "create", "other")
	pod("volume", "reload")
	want(t, pod("volume", "ls"), "other")

	// Podman reads errors from the status alone.
	text := h.Fails("podman", "--root=/var/lib/docker/podman", "--runroot=/run/podman", "--storage-driver=vfs",
		"volume", "create", "--driver", "remora", "-o", "sise=1", "bad")
	want(t, text, `unknown option`, `sise`)
	want(t, pod("volume", "inspect", "dbdata"), `"Driver": "remora"`)
	pod("volume", "rm", "dbdata", "other")
	is(t, "volumes", h.MustCli("volume", "ls", "-q"), "")
}
