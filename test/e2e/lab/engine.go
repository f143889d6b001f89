package lab

import (
	"archive/tar"
	"fmt"
	"os"
	"strings"
	"time"
)

// ImageName is the image that an engine of a host has.
const ImageName = "bb:1"

// writeImage writes an image of busybox alone.
func writeImage(path, busybox string) error {
	b, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close() // once more on the way out of an error
	w := tar.NewWriter(f)
	for _, dir := range []string{"bin/", "etc/", "tmp/", "data/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(b))}); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	for applet := range strings.FieldsSeq("sh cat echo ls sleep sync touch id stat mkdir rm dd true false wc md5sum df ip nc nslookup ping hostname wget httpd cut grep head") {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}); err != nil {
			return err
		}
	}
	return w.Close()
}

// Dockerd starts an engine in the host and waits until it answers and has the image. args
// are added to its command line.
func (h *Host) Dockerd(args ...string) *Process {
	h.t.Helper()
	p := h.Start(nil, "dockerd", append([]string{
		"--host=unix:///run/docker.sock", "--data-root=/var/lib/docker", "--exec-root=/run/docker", "--pidfile=/run/docker.pid",
		"--bridge=none", "--iptables=false", "--cgroup-parent=/remora-" + h.Name,
	}, args...)...)
	h.Wait(p, 60*time.Second, "engine", func() error {
		_, err := h.Run("docker", "version")
		return err
	})
	if _, err := h.Run("docker", "image", "inspect", ImageName); err != nil {
		h.Must("docker", "import", h.lab.Image, ImageName)
	}
	return p
}

// DockerdWithNetworks starts an engine as [Host.Dockerd] does, with the bridge and the rules of a host that has
// nothing set.
func (h *Host) DockerdWithNetworks(args ...string) *Process {
	h.t.Helper()
	return h.Dockerd(append([]string{"--bridge=", "--iptables=true"}, args...)...)
}

// KillEngine ends dockerd and its containerd at once. Containers live on. The file that
// names containerd's process goes too: where the machine's init is slow to reap, the next
// engine would wait for a process that is dead.
func (h *Host) KillEngine(p *Process) {
	h.t.Helper()
	p.Kill()
	h.Must("sh", "-c", "f=/run/docker/containerd/containerd.pid; kill -9 $(cat $f) 2>/dev/null; rm -f $f")
}

// Docker runs the docker command in the host.
func (h *Host) Docker(args ...string) (string, error) { return h.Run("docker", args...) }

// MustDocker runs the docker command and fails the test where it fails.
func (h *Host) MustDocker(args ...string) string {
	h.t.Helper()
	return h.Must("docker", args...)
}

// Container runs a container to its end, with a volume, and returns what it printed.
func (h *Host) Container(volume, driver, script string) (string, error) {
	args := []string{"run", "--rm", "--network=none", "-v", volume + ":/data"}
	if driver != "" {
		args = append(args, "--volume-driver="+driver)
	}
	return h.Docker(append(args, ImageName, "sh", "-c", script)...)
}

// Remora starts the daemon under test in the host, with a configuration file, and waits
// until it is ready. An empty configuration is none.
func (h *Host) Remora(config string, env ...string) *Process {
	h.t.Helper()
	if config != "" {
		h.Write("/etc/remora/remora.toml", config)
	}
	p := h.Start(env, h.lab.Remora, "daemon")
	h.WaitReady(p)
	return p
}

// WaitReady waits until the daemon says that it is ready.
func (h *Host) WaitReady(p *Process) {
	h.t.Helper()
	h.Wait(p, 30*time.Second, "remora", func() error {
		_, err := h.Cli("status")
		return err
	})
}

// Cli runs the command line under test in the host.
func (h *Host) Cli(args ...string) (string, error) { return h.Run(h.lab.Remora, args...) }

// MustCli runs the command line and fails the test where it fails.
func (h *Host) MustCli(args ...string) string {
	h.t.Helper()
	return h.Must(h.lab.Remora, args...)
}

// Patience is how long a test waits at least for what has to come. Where all is well nobody waits so long; where a
// machine has much else to do, seconds say nothing about what is tested.
const Patience = 90 * time.Second

// Wait calls ok until it returns nil, and fails the test when that takes longer than d and [Patience] or the
// process ends.
func (h *Host) Wait(p *Process, d time.Duration, what string, ok func() error) {
	h.t.Helper()
	var err error
	d = max(d, Patience)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
		select {
		case <-p.Exited():
			h.t.Fatalf("host %s: %s ended: %v\n%s", h.Name, what, p.err, tail(p.Log(), 30))
		default:
		}
	}
	h.t.Fatalf("host %s: %s is not ready after %s: %v\n%s", h.Name, what, d, err, tail(p.Log(), 30))
}

// Mounts returns the mountpoints in the host's mount table that begin with prefix.
func (h *Host) Mounts(prefix string) []string {
	h.t.Helper()
	points, err := h.LookMounts(prefix)
	must(h.t, err)
	return points
}

// LookMounts is Mounts for a goroutine that may not end the test.
func (h *Host) LookMounts(prefix string) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.pid))
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], prefix) {
			points = append(points, f[4])
		}
	}
	return points, err
}
