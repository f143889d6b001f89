package e2e

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// managed is the bundle, which is made once.
var managed struct {
	once sync.Once
	dir  string
	err  error
}

// bundle returns the directory of the bundle with the program under test.
func bundle(t *testing.T, l *lab.Lab) string {
	t.Helper()
	managed.once.Do(func() {
		managed.dir = filepath.Join(build.dir, "plugin")
		out, err := exec.Command("go", "run", "../../packaging/plugin", "-remora", l.Remora, "-o", managed.dir).CombinedOutput()
		if err != nil {
			managed.err = fmt.Errorf("bundle: %w: %s", err, out)
		}
	})
	noErr(t, managed.err)
	return managed.dir
}

// variant makes a bundle that differs from another in one file, as a new version does.
func variant(t *testing.T, of, version string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "plugin")
	out, err := exec.Command("cp", "-a", of, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("copy: %v: %s", err, out)
	}
	noErr(t, os.WriteFile(filepath.Join(dir, "rootfs/etc/version"), []byte(version), 0o644))
	return dir
}

// managedHost is a host with an engine and a registry.
type managedHost struct {
	*lab.Host
	engine *lab.Process
}

func newManagedHost(t *testing.T, l *lab.Lab) *managedHost {
	t.Helper()
	h := &managedHost{Host: l.Host(t, "h1")}
	h.engine = h.Dockerd()
	t.Cleanup(func() {
		if t.Failed() {
			h.showMounts(t)
		}
	})
	return h
}

// showMounts logs what is mounted in the host, and in each plugin.
func (h *managedHost) showMounts(t *testing.T) {
	t.Helper()
	out, err := h.Run("grep", "/plugins/", "/proc/self/mountinfo")
	t.Logf("mounts of the host: %v\n%s", err, out)
	ids, err := h.Run("runc", "--root", "/run/docker/runtime-runc/plugins.moby", "list", "-q")
	if err != nil {
		t.Log(err)
	}
	for id := range strings.FieldsSeq(ids) {
		out, err := h.Run("runc", "--root", "/run/docker/runtime-runc/plugins.moby", "exec", id, "grep", "/var/lib/remora", "/proc/self/mountinfo")
		t.Logf("mounts of plugin %s: %v\n%s", id, err, out)
	}
}

// registry starts Debian's registry in the host.
func (h *managedHost) registry(t *testing.T) {
	t.Helper()
	h.Write("/run/registry.yml", "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: "+t.TempDir()+"\nhttp:\n  addr: 127.0.0.1:5000\n")
	p := h.Start(nil, "docker-registry", "serve", "/run/registry.yml")
	h.Wait(p, 20*time.Second, "registry", func() error {
		_, err := h.Run("curl", "-sf", "http://127.0.0.1:5000/v2/")
		if err != nil && strings.Contains(p.Log(), "listening on") {
			return nil
		}
		return err
	})
}

// id returns the ID of a plugin.
func (h *managedHost) id(name string) string {
	return h.MustDocker("plugin", "inspect", "-f", "{{.Id}}", name)
}

// inside runs the command line in the plugin, as the guide shows.
func (h *managedHost) inside(name string, args ...string) (string, error) {
	return h.Run("runc", append([]string{"--root", "/run/docker/runtime-runc/plugins.moby", "exec", h.id(name)}, args...)...)
}

// log returns what the engine has logged of its plugins.
func (h *managedHost) log() []string {
	var lines []string
	for line := range strings.Lines(h.engine.Log()) {
		if strings.Contains(line, " plugin=") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// busy starts a container that adds a line to a file of the volume every 50 ms.
func (h *managedHost) busy(name, volume string) {
	h.MustDocker("run", "-d", "--network=none", "--name", name, "-v", volume+":/data", lab.ImageName,
		"sh", "-c", "i=0; while sleep 0.05; do i=$((i+1)); echo $i >> /data/beat || exit 1; done")
}

// beats fails the test where the container does not go on writing.
func (h *managedHost) beats(t *testing.T, name string) {
	t.Helper()
	var seen []string
	for range 2 {
		out, err := h.Docker("exec", name, "wc", "-l", "/data/beat")
		if err != nil {
			t.Fatalf("container %s: %v", name, err)
		}
		seen = append(seen, out)
		time.Sleep(300 * time.Millisecond)
	}
	if seen[0] == seen[1] {
		t.Errorf("container %s does not write: %v", name, seen)
	}
}

var managedNeeds = append([]testenv.Need{testenv.Loop, testenv.Apt, testenv.Registry}, engine...)

// TestManagedPlugin is the life of the plugin on a real engine, from the bundle to a registry
// and back: what containers wrote and the snapshots of it survive disabling and an upgrade,
// and containers go on writing meanwhile.
func TestManagedPlugin(t *testing.T) {
	t.Parallel()
	l := newLab(t, managedNeeds...)
	dir := bundle(t, l)
	h := newManagedHost(t, l)
	h.registry(t)
	const name, next = "127.0.0.1:5000/remora:1", "127.0.0.1:5000/remora:2"

	h.MustDocker("plugin", "create", name, dir)
	want(t, h.MustDocker("plugin", "ls"), name, "false")
	want(t, h.Fails("docker", "plugin", "set", name, "REMORA_RUN_DIR=/run/x"), "not settable")
	want(t, h.Fails("docker", "plugin", "set", name, "REMORA_LOG_LEVELS=debug"), "not found in the plugin configuration")
	h.MustDocker("plugin", "set", name, "REMORA_VOLUME_MOUNT_GRACE=1s", "REMORA_VOLUME_REFRESH=1s", "REMORA_POOL_REMORA_DRIVER=btrfs")
	h.MustDocker("plugin", "enable", name)

	h.MustDocker("volume", "create", "-d", name, "dbdata")
	_, err := h.Container("dbdata", name, "echo bye > /data/hi")
	noErr(t, err)
	out, err := h.Container("dbdata", name, "cat /data/hi")
	noErr(t, err)
	is(t, "what the second container reads", out, "bye")
	h.snapshot(t, name, "dbdata", "before")
	h.busy("writer", "dbdata")

	// Disabled and enabled.
	want(t, h.Fails("docker", "plugin", "disable", name), "in use")
	h.MustDocker("plugin", "disable", "-f", name)
	want(t, h.Fails("docker", "volume", "inspect", "dbdata"), "disabled")
	h.beats(t, "writer")
	h.MustDocker("plugin", "enable", name)
	h.survived(t, name)

	// The plugin dies, and the engine starts it again.
	h.Must("runc", "--root", "/run/docker/runtime-runc/plugins.moby", "kill", h.id(name), "KILL")
	h.Wait(h.engine, 30*time.Second, "plugin", func() error {
		_, err := h.inside(name, "remora", "status")
		return err
	})
	h.survived(t, name)

	// The engine restarts. Not by a kill: the next one of this version would clean up after the
	// old plugin while the new one starts, and now and then take the new one's mounts away.
	h.MustDocker("rm", "-f", "writer")
	noErr(t, h.engine.Stop(30*time.Second))
	h.engine = h.Dockerd()
	h.busy("writer", "dbdata")
	h.survived(t, name)

	// Pushed, and upgraded to what was pushed later.
	h.MustDocker("plugin", "push", name)
	h.MustDocker("plugin", "create", next, variant(t, dir, "2"))
	h.MustDocker("plugin", "push", next)
	h.MustDocker("plugin", "rm", next)
	h.MustDocker("plugin", "disable", "-f", name)
	h.MustDocker("plugin", "upgrade", "--skip-remote-check", "--grant-all-permissions", name, next)
	h.MustDocker("plugin", "enable", name)
	out, err = h.inside(name, "cat", "/etc/version")
	noErr(t, err)
	is(t, "version", out, "2")
	h.survived(t, name)
	want(t, h.MustDocker("plugin", "inspect", "-f", "{{.Settings.Env}}", name), "REMORA_POOL_REMORA_DRIVER=btrfs")

	// To the end, as a person would.
	h.MustDocker("rm", "-f", "writer")
	is(t, "rm", h.MustDocker("volume", "rm", "dbdata"), "dbdata")
	h.MustDocker("plugin", "disable", name)
	h.MustDocker("plugin", "rm", name)
	if left := h.Mounts("/var/lib/docker/plugins"); len(left) > 0 {
		t.Errorf("mounts are left: %q", left)
	}

	// From the registry, with settings, under the name that is easy to remember.
	h.MustDocker("plugin", "install", "--grant-all-permissions", "--alias", "remora", name, "REMORA_LOG_LEVEL=debug", "REMORA_POOL_REMORA_DRIVER=loop")
	h.MustDocker("volume", "create", "-d", "remora", "again")
	_, err = h.Container("again", "remora", "echo bye > /data/hi")
	noErr(t, err)
	out, err = h.Container("again", "remora", "cat /data/hi")
	noErr(t, err)
	is(t, "what is read of a volume of the plugin that was installed", out, "bye")
	h.busy("image", "again")
	h.MustDocker("plugin", "disable", "-f", "remora")
	h.MustDocker("plugin", "enable", "remora")
	h.beats(t, "image")
	_, err = h.Container("again", "", "echo there > /data/second")
	noErr(t, err)
	is(t, "what the old container reads of the new", h.MustDocker("exec", "image", "cat", "/data/second"), "there")
	h.MustDocker("rm", "-f", "image")
	h.MustDocker("volume", "rm", "again")
	h.MustDocker("plugin", "disable", "remora")
	h.MustDocker("plugin", "rm", "remora")
	h.readable(t)
}

// snapshot makes a snapshot from inside the plugin.
func (h *managedHost) snapshot(t *testing.T, name, volume, snapshot string) {
	t.Helper()
	out, err := h.inside(name, "remora", "snapshot", "create", volume, snapshot)
	if err != nil {
		t.Fatalf("snapshot: %v: %s", err, out)
	}
}

// survived checks what must be as it was: the volume, its snapshot, the container that writes,
// and that a second container writes to the same file system.
func (h *managedHost) survived(t *testing.T, name string) {
	t.Helper()
	h.beats(t, "writer")
	want(t, h.MustDocker("volume", "ls"), name, "dbdata")
	out, err := h.Container("dbdata", "", "cat /data/hi; echo there > /data/second")
	noErr(t, err)
	is(t, "what a new container reads", out, "bye")
	is(t, "what the old one reads of the new", h.MustDocker("exec", "writer", "cat", "/data/second"), "there")
	out, err = h.inside(name, "remora", "snapshot", "ls", "dbdata")
	noErr(t, err)
	want(t, out, "before")
	time.Sleep(3 * time.Second) // longer than mounts count that nobody holds
	h.beats(t, "writer")
	out, err = h.inside(name, "remora", "volume", "inspect", "dbdata")
	noErr(t, err)
	var v []struct{ Mounts []struct{ Count int } }
	noErr(t, json.Unmarshal([]byte(out), &v))
	if len(v) != 1 || len(v[0].Mounts) != 1 || v[0].Mounts[0].Count != 1 {
		t.Errorf("mounts are %+v, want that of the writer alone", v)
	}
}

// logLine is how a line of the plugin looks in the engine's log.
var logLine = regexp.MustCompile(`^time="[^"]+" level=(info|error) msg=("[^"\\]*"|\S+) plugin=[0-9a-f]{64}$`)

// readable wants lines without escapes and a second time or level, and of errors only what
// are some.
func (h *managedHost) readable(t *testing.T) {
	t.Helper()
	lines := h.log()
	if len(lines) < 10 {
		t.Errorf("only %d lines of the plugin in the engine's log", len(lines))
	}
	for _, line := range lines {
		if !logLine.MatchString(line) || strings.Contains(line, "level=INFO") || strings.Count(line, "time=") > 1 {
			t.Errorf("not to be read at one glance: %s", line)
		}
		if strings.Contains(line, "level=error") && strings.Contains(line, "ready") {
			t.Errorf("no error: %s", line)
		}
	}
	want(t, strings.Join(lines, "\n"), `level=info msg="ready version=`, "debug: ")
}

// TestBundle: the same input makes the same bytes, and every program of the bundle finds its
// libraries there.
func TestBundle(t *testing.T) {
	t.Parallel()
	l := newLab(t, managedNeeds...)
	dir := bundle(t, l)
	again := filepath.Join(t.TempDir(), "plugin")
	if out, err := exec.Command("go", "run", "../../packaging/plugin", "-remora", l.Remora, "-o", again).CombinedOutput(); err != nil {
		t.Fatalf("bundle: %v: %s", err, out)
	}
	if out, err := exec.Command("cmp", dir+".tar", again+".tar").CombinedOutput(); err != nil {
		t.Errorf("a second bundle differs: %v: %s", err, out)
	}
	programs := 0
	noErr(t, filepath.WalkDir(filepath.Join(dir, "rootfs/usr"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		e, err := elf.Open(p)
		if err != nil {
			return nil // no program
		}
		defer e.Close()
		i := slices.IndexFunc(e.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		if i < 0 {
			return nil
		}
		loader, err := io.ReadAll(e.Progs[i].Open())
		if err != nil {
			return err
		}
		programs++
		in := strings.TrimPrefix(p, filepath.Join(dir, "rootfs"))
		out, err := exec.Command("chroot", filepath.Join(dir, "rootfs"), strings.TrimRight(string(loader), "\x00"), "--list", in).CombinedOutput()
		if err != nil || strings.Contains(string(out), "not found") {
			t.Errorf("%s: %v: %s", in, err, out)
		}
		return nil
	}))
	if programs < 25 {
		t.Errorf("only %d programs were looked at", programs)
	}
	for _, args := range [][]string{{"sshfs", "-V"}, {"mkfs.ext4", "-V"}, {"mkfs.xfs", "-V"}, {"btrfs", "version"}, {"mount.nfs", "-V"}, {"mount.cifs", "-V"}, {"remora", "version"}, {"sh", "-c", "ls /"}} {
		if out, err := exec.Command("chroot", append([]string{filepath.Join(dir, "rootfs")}, args...)...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
}

// TestManagedPluginEBS is the classic example with the classic names, on a fake of EC2.
func TestManagedPluginEBS(t *testing.T) {
	l := newLab(t, managedNeeds...)
	dir := bundle(t, l)
	h := newManagedHost(t, l)
	cloud, disks := h.ec2(t, l)

	const name = "remora/ebs:latest"
	h.MustDocker("plugin", "create", name, dir)
	h.MustDocker("plugin", "set", name,
		"REMORA_POOL_REMORA_DRIVER=ebs", "EBS_ACCESSKEY=AKIATEST", "EBS_SECRETKEY=wrong-secret-of-the-test", "EBS_REGION=us-east-1",
		"EBS_ENDPOINT="+cloud.Endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+cloud.Metadata,
		// The fake's machine has a /dev and a /sys of its own.
		"run.source="+disks, "REMORA_POOL_REMORA_DEV=/host/run"+strings.TrimPrefix(cloud.Dev, disks), "REMORA_POOL_REMORA_SYS=/host/run"+strings.TrimPrefix(cloud.Sys, disks),
		"REMORA_ENGINE_SOCKETS=none")
	h.MustDocker("plugin", "enable", name)
	text := h.Fails("docker", "volume", "create", "-d", name, "my-ebs-volume")
	if strings.Contains(text, "wrong-secret") {
		t.Errorf("the secret is in the error: %s", text)
	}
	h.MustDocker("plugin", "disable", "-f", name)
	h.MustDocker("plugin", "set", name, "EBS_SECRETKEY=secret-of-the-test")
	h.MustDocker("plugin", "enable", name)

	h.MustDocker("volume", "create", "-d", name, "-o", "size=1g", "my-ebs-volume")
	_, err := h.Container("my-ebs-volume", name, "echo bye > /data/hi")
	noErr(t, err)
	out, err := h.Container("my-ebs-volume", name, "cat /data/hi")
	noErr(t, err)
	is(t, "what the second container reads", out, "bye")
	h.MustDocker("plugin", "disable", "-f", name)
	h.MustDocker("plugin", "enable", name)
	out, err = h.Container("my-ebs-volume", name, "cat /data/hi")
	noErr(t, err)
	is(t, "what is read after disabling", out, "bye")
	for _, line := range h.log() {
		if strings.Contains(line, "secret-of-the-test") {
			t.Errorf("the secret is in the log: %s", line)
		}
	}
	h.MustDocker("volume", "rm", "my-ebs-volume")
	h.MustDocker("plugin", "disable", name)
	h.MustDocker("plugin", "rm", name)
}

// instance is where the fake of EC2 and its one machine are.
type instance struct{ Endpoint, Metadata, Dev, Sys string }

// ec2 starts a fake of EC2 with one machine, and returns the directory that has the disks.
func (h *managedHost) ec2(t *testing.T, l *lab.Lab) (instance, string) {
	t.Helper()
	program, disks := filepath.Join(t.TempDir(), "ec2"), t.TempDir()
	if out, err := exec.Command("go", "build", "-o", program, "../cloud/ec2/cmd").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cmd := h.Command(t.Context(), program, "-dir", disks, "-key", "AKIATEST", "-secret", "secret-of-the-test", "-instance", "us-east-1a:t3.micro")
	in, err := cmd.StdinPipe()
	noErr(t, err)
	stdout, err := cmd.StdoutPipe()
	noErr(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	noErr(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // its own end, or that of the host
	})
	var first struct {
		Endpoint  string
		Instances []instance
	}
	if err := json.NewDecoder(stdout).Decode(&first); err != nil || len(first.Instances) != 1 {
		t.Fatalf("ec2: %v: %s", err, stderr.String())
	}
	i := first.Instances[0]
	i.Endpoint = first.Endpoint
	if _, err := os.Stat(i.Dev); errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return i, disks
}
