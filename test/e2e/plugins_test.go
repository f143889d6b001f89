package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// pluginHost is a host with Remora, a registry, and the bundles of two versions of a plugin.
type pluginHost struct {
	*lab.Host
	t      *testing.T
	remora *lab.Process
}

func newPluginHost(t *testing.T, needs ...testenv.Need) pluginHost {
	t.Helper()
	l := newLab(t, append([]testenv.Need{testenv.Registry, testenv.Dockerd}, needs...)...)
	h := pluginHost{l.Host(t, "plugins"), t, nil}
	startRegistry(t, h.Host)
	h.remora = h.Remora("")
	for _, version := range []string{"1", "2"} {
		dir := filepath.Join(t.TempDir(), "p")
		pluginBundle(t, dir, version)
		name := reg + "/rs/p:v" + version
		is(t, "name", h.MustCli("plugin", "create", name, dir), name)
		want(t, h.MustCli("plugin", "push", name), name)
		h.MustCli("plugin", "rm", name)
	}
	return h
}

// inspect returns what Remora knows of a plugin.
func (h pluginHost) inspect(name string) control.Plugin {
	h.t.Helper()
	var all []control.Plugin
	noErr(h.t, json.Unmarshal([]byte(h.MustCli("plugin", "inspect", name)), &all))
	return all[0]
}

// again starts the daemon after it has ended.
func (h *pluginHost) again() {
	h.t.Helper()
	h.remora = h.Remora("")
}

// TestPluginLife is the life of a managed plugin on a host without an engine, by Remora's own commands.
func TestPluginLife(t *testing.T) {
	t.Parallel()
	h := newPluginHost(t)
	v1, v2 := reg+"/rs/p:v1", reg+"/rs/p:v2"

	// What it asks for is shown, from the first to the last, and not granted without a terminal.
	refused := h.Fails(remoraOf(h), "plugin", "install", v1)
	want(t, refused, "exit status 13", fmt.Sprintf("Plugin %q is requesting the following privileges:", v1),
		"- network: [host]", "- mount: [/tmp]", "- device: [/dev/null]", "- capabilities: [CAP_SYS_ADMIN]",
		"permission denied while installing plugin", "--grant-all-permissions")
	want(t, h.MustCli("plugin", "privileges", v1), "network        host", "capabilities   CAP_SYS_ADMIN")
	want(t, h.Fails(remoraOf(h), "plugin", "install", "--grant-all-permissions", "--pin", "sha256:"+strings.Repeat("a", 64), v1), "pinned")
	want(t, h.Fails(remoraOf(h), "plugin", "install", "--grant-all-permissions", v1, "NOPE=1"), `setting "NOPE" not found`)
	is(t, "plugins after what was refused", h.MustCli("plugin", "ls", "-q"), "")

	// By digest.
	digest := "sha256:" + strings.Fields(h.Must("sh", "-c", "busybox wget -q -O - --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' http://"+reg+"/v2/rs/p/manifests/v1 | sha256sum"))[0]
	h.MustCli("plugin", "install", "--grant-all-permissions", "--disable", "--alias", "pinned", "--pin", digest, v1)
	is(t, "pinned to", h.inspect("pinned").Pinned, digest)
	want(t, h.Fails(remoraOf(h), "plugin", "upgrade", "--grant-all-permissions", "pinned", v2), "it is pinned to "+digest)
	h.MustCli("plugin", "rm", "pinned")

	h.Write("/etc/remora/token", "hunter2\n")
	is(t, "installed", h.MustCli("plugin", "install", "--grant-all-permissions", "--alias", "disk", "--secret", "EMPTY=/etc/remora/token", v1, "DEBUG=1"), "disk:latest")
	p := h.inspect("disk")
	is(t, "state", p.State, "running")
	is(t, "secret", p.Secrets["EMPTY"], "/etc/remora/token")
	want(t, h.MustCli("plugin", "ls"), "disk:latest", "true", "running")
	want(t, h.MustCli("status"), "disk:latest", "running")

	// The secret is in the plugin's environment and nowhere else.
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
	noErr(t, err)
	want(t, string(environ), "EMPTY=hunter2\x00", "DEBUG=1\x00")
	if out, err := h.Run("grep", "-rl", "hunter2", "/var/lib/remora", "/run/remora"); err == nil {
		t.Errorf("the secret is in %s", out)
	}

	// A look inside.
	is(t, "what is read in it", h.Must("sh", "-c", "echo hello | "+remoraOf(h)+" plugin exec -i disk /busybox cat - /version"), "hello\n1")
	if _, err := h.Cli("plugin", "exec", "disk", "/busybox", "sh", "-c", "echo $EMPTY; exit 7"); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("a command that exits with 7: %v", err)
	}
	want(t, h.Fails(remoraOf(h), "plugin", "exec", "disk", "/nope"), "/nope")
	want(t, h.MustCli("plugin", "top", "disk"), "/plugin -name=p")
	want(t, h.MustCli("plugin", "logs", "--tail", "5", "disk"))
	before := h.Path("/var/lib/remora/plugins/plugins/" + p.ID + "/propagated-mount/volumes")
	docker := func(args ...string) string {
		return h.Must("docker", append([]string{"-H", "unix:///run/remora/engine.sock"}, args...)...)
	}
	docker("volume", "create", "-d", "disk", "data")
	noErr(t, os.WriteFile(filepath.Join(before, "data/file"), []byte("kept"), 0o600))
	want(t, h.Fails(remoraOf(h), "plugin", "disable", "disk"), "exit status 11", `plugin disk:latest is in use: it has the volume "data"`, "hint: remove them first, or: remora plugin disable --force disk:latest")

	// The daemon comes and goes, and the plugin stays as it is.
	noErr(t, h.remora.Stop(20*time.Second))
	h.again()
	is(t, "process after a restart", h.inspect("disk").PID, p.PID)
	h.remora.Kill()
	h.again()
	is(t, "process after a kill", h.inspect("disk").PID, p.PID)
	is(t, "volumes", docker("volume", "ls", "-q"), "data")

	// One that crashes is started again, and who calls meanwhile waits.
	noErr(t, syscall.Kill(p.PID, syscall.SIGKILL))
	is(t, "volumes right after the crash", docker("volume", "inspect", "-f", "{{.Name}} {{.Driver}}", "data"), "data disk:latest")
	if now := h.inspect("disk"); now.PID == p.PID || !now.Enabled {
		t.Errorf("after the crash it is %+v", now)
	}

	// What was upgraded stays so, whatever happens next. Settings, ID and data stay.
	want(t, h.Fails(remoraOf(h), "plugin", "upgrade", "disk", v2), "is enabled")
	h.MustCli("plugin", "disable", "--force", "disk")
	is(t, "upgraded", h.MustCli("plugin", "upgrade", "--grant-all-permissions", "disk", v2), "disk:latest")
	h.remora.Kill()
	h.again()
	now := h.inspect("disk")
	is(t, "reference", now.PluginReference, v2)
	is(t, "ID", now.ID, p.ID)
	want(t, now.Config.Description, "version 2")
	want(t, strings.Join(now.Settings.Env, " "), "DEBUG=1")
	h.MustCli("plugin", "enable", "disk")
	kept, err := os.ReadFile(filepath.Join(before, "data/file"))
	noErr(t, err)
	is(t, "data", string(kept), "kept")

	docker("volume", "rm", "data")
	h.MustCli("plugin", "rm", "--force", "disk")
	if left, err := h.Run("sh", "-c", "ls /run/docker/plugins/ | grep disk; ls /var/lib/remora/plugins/plugins"); err == nil && left != "" {
		t.Errorf("left: %s", left)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", now.PID)); now.PID != 0 && err == nil {
		t.Errorf("process %d is left", now.PID)
	}
	for _, m := range h.Mounts("/var/lib/remora/plugins") {
		t.Errorf("mount left: %s", m)
	}
}

// remoraOf is the program under test.
func remoraOf(pluginHost) string { return build.lab.Remora }

// TestPluginForEngines has dockerd and podman use a plugin that Remora runs, found by its name.
func TestPluginForEngines(t *testing.T) {
	t.Parallel()
	h := newPluginHost(t, testenv.DockerCLI, testenv.Podman)
	h.MustCli("plugin", "install", "--grant-all-permissions", "--alias", "disk", reg+"/rs/p:v1", "args=-mounts=/data/m")
	h.Dockerd()
	h.MustDocker("volume", "create", "-d", "disk", "data")
	_, err := h.Container("data", "", "echo hello > /data/file")
	noErr(t, err)
	h.MustDocker("run", "-d", "--name", "c1", "--network=none", "-v", "data:/data", lab.ImageName, "sleep", "1000")

	// It counts as used, although the volume is another engine's.
	want(t, h.Fails(remoraOf(h), "plugin", "disable", "disk"), `is in use: it has the volume "data"`)

	// The daemon is killed, and the container does not notice.
	h.remora.Kill()
	h.again()
	want(t, h.MustDocker("exec", "c1", "cat", "/data/file"), "hello")
	h.MustDocker("rm", "-f", "c1")
	h.MustDocker("volume", "rm", "data")

	// Podman is told of its socket, and activates it, of which a managed plugin need not know.
	pod := podman(t, h.Host)
	h.Write("/etc/containers/containers.conf", strings.Replace(containersConf, "[engine.volume_plugins]", "[engine.volume_plugins]\ndisk = \"/run/docker/plugins/disk.sock\"", 1))
	pod("import", "-q", build.lab.Image, lab.ImageName)
	pod("volume", "create", "--driver", "disk", "more")
	pod("run", "--rm", "--network=none", "-v", "more:/data", lab.ImageName, "sh", "-c", "echo bye > /data/file")
	is(t, "what podman wrote", pod("run", "--rm", "--network=none", "-v", "more:/data", lab.ImageName, "cat", "/data/file"), "bye")
	pod("volume", "rm", "more")

	// What another engine has made keeps it from being removed, although nobody can ask it any more.
	h.MustDocker("volume", "create", "-d", "disk", "late")
	for _, disable := range [][]string{{"plugin", "disable", "disk"}, {"plugin", "disable", "--force", "disk"}} {
		h.MustCli(disable...)
		want(t, h.Fails(remoraOf(h), "plugin", "rm", "disk"), `is in use: it has the volume "late"`, "remora plugin rm --force disk")
		h.MustCli("plugin", "enable", "disk")
	}
	h.MustDocker("volume", "rm", "late")
	h.MustCli("plugin", "disable", "disk")
	h.MustCli("plugin", "rm", "disk")
}
