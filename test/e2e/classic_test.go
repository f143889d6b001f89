package e2e

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestClassicFlow is the walk through every tutorial: create, list, write in one
// container, read in another, inspect, remove. Between the two containers the daemon is
// killed.
func TestClassicFlow(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	remora := h.Remora("")
	h.Dockerd()

	is(t, "create", h.MustDocker("volume", "create", "-d", "remora", "dbdata"), "dbdata")
	want(t, h.MustDocker("volume", "ls"), "remora", "dbdata")
	h.MustDocker("run", "--rm", "--network=none", "-v", "dbdata:/volume", "bb:1", "sh", "-c", "echo bye > /volume/hi")

	remora.Kill()
	remora = h.Remora("")
	is(t, "what the second container reads",
		h.MustDocker("run", "--rm", "--network=none", "-v", "dbdata:/volume", "bb:1", "cat", "/volume/hi"), "bye")

	var inspected []struct {
		Name, Driver, Mountpoint, Scope string
		CreatedAt                       time.Time
	}
	noErr(t, json.Unmarshal([]byte(h.MustDocker("volume", "inspect", "dbdata")), &inspected))
	v := inspected[0]
	is(t, "driver", v.Driver, "remora")
	is(t, "scope", v.Scope, "local")
	if time.Since(v.CreatedAt) > time.Hour {
		t.Errorf("created at %s", v.CreatedAt)
	}
	is(t, "the file on the host", h.Must("cat", v.Mountpoint+"/hi"), "bye")

	is(t, "rm", h.MustDocker("volume", "rm", "dbdata"), "dbdata")
	if out := h.MustDocker("volume", "ls", "-q"); out != "" {
		t.Errorf("volumes after rm: %s", out)
	}
	if out, err := h.Run("ls", v.Mountpoint); err == nil {
		t.Errorf("data after rm: %s", out)
	}
	noErr(t, remora.Stop(10*time.Second))
}

// TestVolumeDriverFlag is the one-liner of the old tutorials: the volume is made by the run.
func TestVolumeDriverFlag(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	_, err := h.Container("volume-x", "remora", "echo 1 > /data/a")
	noErr(t, err)
	out, err := h.Container("volume-x", "", "cat /data/a")
	noErr(t, err)
	is(t, "what was written", out, "1")

	// An anonymous volume goes with its container.
	h.MustDocker("run", "--rm", "--network=none", "-v", "/data", "--volume-driver=remora", "bb:1", "touch", "/data/x")
	is(t, "volumes", h.MustDocker("volume", "ls", "-q"), "volume-x")
	is(t, "volumes to remora", h.MustCli("volume", "ls", "-q"), "volume-x")
}

// TestExternalVolumes does what "docker compose up" does with "external: true": the
// volumes are there before, the containers name them, and both outlive the project.
func TestExternalVolumes(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	for _, v := range []string{"dbdata", "wpdata"} {
		h.MustDocker("volume", "create", "--driver", "remora", "--name", v)
	}
	h.MustDocker("run", "-d", "--name", "db", "--network=none", "--mount", "type=volume,src=dbdata,dst=/data", "bb:1",
		"sh", "-c", "echo rows > /data/t && exec sleep 1000")
	h.MustDocker("run", "-d", "--name", "wp", "--network=none", "--mount", "type=volume,src=wpdata,dst=/wp",
		"--volumes-from", "db:ro", "bb:1", "sleep", "1000")
	want(t, h.Fails("docker", "volume", "rm", "dbdata"), "volume is in use")
	want(t, h.MustDocker("exec", "db", "cat", "/data/t"), "rows")
	h.MustDocker("cp", "db:/data/t", "/run/t")
	h.MustDocker("restart", "-t", "0", "db")
	is(t, "mounts of dbdata", mounts(t, h, "dbdata"), 2)
	h.MustDocker("rm", "-f", "db", "wp")
	is(t, "mounts of dbdata", mounts(t, h, "dbdata"), 0)
	h.MustDocker("volume", "rm", "dbdata", "wpdata")
}

// TestCopyUp fills a new volume from the image, as the engine does, and leaves no count.
func TestCopyUp(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	out := h.MustDocker("run", "--rm", "--network=none", "-v", "bin:/bin", "--volume-driver=remora", "bb:1", "ls", "/bin")
	want(t, out, "busybox")
	is(t, "mounts", mounts(t, h, "bin"), 0)
}

// TestDockerdRestarts kills and restarts the engine under a live daemon, with and without
// live restore, and looks at the counts.
func TestDockerdRestarts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"plain", nil},
		{"live-restore", []string{"--live-restore"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newLab(t, engine...).Host(t, "h1")
			h.Remora("", "REMORA_VOLUME_MOUNT_GRACE=1s", "REMORA_VOLUME_REFRESH=1s")
			e := h.Dockerd(tt.args...)
			h.MustDocker("volume", "create", "-d", "remora", "--label", "a=b", "v1")
			h.MustDocker("run", "-d", "--name", "c1", "--network=none", "-v", "v1:/data", "bb:1", "sh", "-c",
				"while sleep 0.1; do echo x >> /data/log; done")
			h.KillEngine(e)
			e = h.Dockerd(tt.args...)
			h.MustDocker("start", "c1")
			h.MustDocker("cp", "c1:/data/log", "/run/log")
			is(t, "mounts while it runs", mounts(t, h, "v1"), 1)
			h.MustDocker("stop", "-t", "0", "c1")
			eventually(t, 20*time.Second, func() bool { return mounts(t, h, "v1") == 0 })
			noErr(t, e.Stop(20*time.Second))
			h.Dockerd(tt.args...)
			want(t, h.MustDocker("volume", "inspect", "v1"), `"a": "b"`)
			h.MustDocker("rm", "c1")
			h.MustDocker("volume", "rm", "v1")
		})
	}
}

// TestDaemonRestartsUnderContainers restarts Remora, kindly and not, under a container
// that writes on.
func TestDaemonRestartsUnderContainers(t *testing.T) {
	t.Parallel()
	h := newLab(t, engine...).Host(t, "h1")
	r := h.Remora("")
	h.Dockerd()
	h.MustDocker("run", "-d", "--name", "c1", "--network=none", "-v", "v1:/data", "--volume-driver=remora", "bb:1", "sh", "-c",
		"i=0; while sleep 0.02; do i=$((i+1)); echo $i >> /data/log; done")
	for i := range 4 {
		if i%2 == 0 {
			r.Kill()
		} else {
			noErr(t, r.Stop(10*time.Second))
		}
		r = h.Remora("")
		is(t, "mounts", mounts(t, h, "v1"), 1)
		want(t, h.MustDocker("inspect", "-f", "{{.State.Status}}", "c1"), "running")
		before := h.MustDocker("exec", "c1", "wc", "-l", "/data/log")
		eventually(t, 10*time.Second, func() bool { return h.MustDocker("exec", "c1", "wc", "-l", "/data/log") != before })
	}
	h.MustDocker("kill", "c1")
	lines := strings.Fields(h.MustDocker("run", "--rm", "--network=none", "-v", "v1:/data", "bb:1", "cat", "/data/log"))
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			t.Errorf("line %d is %q: what was written between is lost", i+1, line)
			break
		}
	}
	is(t, "mounts", mounts(t, h, "v1"), 0)
}
