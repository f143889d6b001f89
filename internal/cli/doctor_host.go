package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	engineapi "github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/trace"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// daemon looks whether the daemon answers, and whether it is this program.
func (d *doctor) daemon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	s, err := d.client.Status(ctx)
	if err != nil {
		d.fail("daemon", err.Error(), strings.Join(errdefs.Hints(err), "; "))
		return
	}
	d.status = &s
	d.ok("daemon", fmt.Sprintf("version %s, process %d", s.Version, s.PID))
	if s.Version != version() {
		d.warn("daemon", fmt.Sprintf("runs version %s, this program is %s", s.Version, version()), "restart the daemon")
	}
	if s.ConfigError != "" {
		d.fail("daemon", "did not take over the last configuration: "+s.ConfigError, "correct it, then: remora reload")
	}
}

// pools looks at the state of each pool, and whether those of the file are served.
func (d *doctor) pools() {
	if d.status == nil {
		return
	}
	served := map[string]bool{}
	for _, p := range d.status.Pools {
		served[p.Name] = true
		if p.Reachable {
			text := fmt.Sprintf("driver %s, %d volumes, %d mounted", p.Driver, p.Volumes, p.Mounted)
			if p.About != "" {
				text += "; " + p.About
			}
			d.ok("pool "+p.Name, text)
			if p.Advice != nil {
				d.add("pool "+p.Name, "ok", p.Advice.Text, p.Advice.Mend)
			}
		} else {
			d.fail("pool "+p.Name, p.Error, cmp.Or(p.Mend, "bring the storage back; the daemon notices by itself"))
		}
	}
	for _, p := range d.conf.Pools {
		if !served[p.Name] {
			d.fail("pool "+p.Name, "configured, and not served", "remora reload")
		}
	}
}

// propagation looks whether an engine sees what the daemon mounts below its run directory.
func (d *doctor) propagation() {
	shared, point, err := mount.Shared(d.conf.RunDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.warn("propagation", err.Error(), "")
	case !shared:
		d.warn("propagation", fmt.Sprintf("mounts below %s are not seen by engines that have a mount namespace of their own", point),
			"mount --make-rshared "+point)
	default:
		d.ok("propagation", point+" is shared")
	}
}

// asRoot mends what another user may not look at.
const asRoot = "run it as root: sudo remora doctor"

// discovery looks at every file in which an engine finds a plugin.
func (d *doctor) discovery(ctx context.Context) {
	cut := trace.Left(d.conf.PluginDir)
	for e, err := range (client.Dirs{Sockets: d.conf.PluginDir}).List() {
		if err != nil {
			d.warn("discovery", err.Error(), strings.Join(errdefs.Hints(err), "; "))
			continue
		}
		check := "plugin " + e.Name
		addr := strings.TrimPrefix(e.Addr, "unix://")
		if addr == e.Addr {
			d.ok(check, e.Source+" names "+e.Addr)
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, doctorTime)
		conn, err := new(net.Dialer).DialContext(ctx, "unix", addr)
		cancel()
		if slices.Contains(cut, addr) {
			d.fail(check, e.Source+": a trace of its calls was killed, and the plugin cannot be reached", "remora plugin trace --mend "+addr)
			continue
		}
		if errors.Is(err, fs.ErrPermission) {
			d.warn(check, e.Source+": this user may not open it", asRoot)
			continue
		}
		if err != nil {
			d.fail(check, e.Source+": nobody listens there, and each search of an engine waits 15 seconds for it",
				"start that plugin, or: rm "+e.Source)
			continue
		}
		_ = conn.Close() // it was there
		d.ok(check, e.Source)
	}
}

// dockerSocket is where dockerd listens unless DOCKER_HOST says otherwise.
const dockerSocket = engineapi.DockerSocket

// docker looks whether an engine answers, and which.
func (d *doctor) docker(ctx context.Context) {
	host := d.env("DOCKER_HOST")
	path, isUnix := strings.CutPrefix(host, "unix://")
	switch {
	case host == "":
		path = dockerSocket
	case !isUnix:
		d.warn("docker", "DOCKER_HOST is "+host+", which is not on this host's sockets; not looked at", "")
		return
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		d.warn("docker", "no engine at "+path, "start dockerd, if this host is to have one")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	v, err := dockerVersion(ctx, path)
	if errors.Is(err, errdefs.ErrDenied) {
		d.warn("docker", err.Error(), asRoot)
		return
	}
	if err != nil {
		d.fail("docker", err.Error(), "look at the engine: systemctl status docker")
		return
	}
	d.ok("docker", fmt.Sprintf("%s, API %s", v.Version, v.APIVersion))
	if d.conf.PluginDir != sdk.PluginDir {
		d.warn("docker", fmt.Sprintf("looks for plugins in %s, the pools' sockets are in %s", sdk.PluginDir, d.conf.PluginDir),
			"leave plugin_dir at its default, or announce the sockets in /etc/docker/plugins/NAME.spec")
		return
	}
	d.remembered(ctx, engine{path})
}

// remembered looks for plugins that an engine goes on asking although they are gone.
func (d *doctor) remembered(ctx context.Context, e engine) {
	var info struct{ Plugins struct{ Volume []string } }
	var managed []struct{ Name string }
	if e.get(ctx, "/info", &info) != nil || e.get(ctx, "/plugins", &managed) != nil {
		return
	}
	for _, name := range info.Plugins.Volume {
		own := func(p struct{ Name string }) bool { return p.Name == name || p.Name == name+":latest" }
		if name == "local" || slices.ContainsFunc(managed, own) {
			continue
		}
		if _, err := (client.Dirs{Sockets: d.conf.PluginDir}).Find(name); errors.Is(err, errdefs.ErrNotFound) {
			d.warn("docker", fmt.Sprintf("remembers plugin %s, which is gone: whatever lists all volumes waits 15 seconds for it", name),
				"restart the engine, or start that plugin again")
		}
	}
}

type engineVersion struct {
	Version    string
	APIVersion string `json:"ApiVersion"`
}

func dockerVersion(ctx context.Context, path string) (v engineVersion, err error) {
	return v, engine{path}.get(ctx, "/version", &v)
}

// podman looks whether podman, if it is here, knows of the pools.
func (d *doctor) podman() {
	installed := false
	for _, dir := range filepath.SplitList(d.env("PATH")) {
		if fi, err := os.Stat(filepath.Join(dir, "podman")); err == nil && !fi.IsDir() {
			installed = true
		}
	}
	if !installed {
		return
	}
	known := podmanPlugins(func(file string, err error) { d.warn("podman", file+": "+err.Error(), "correct it") })
	for _, p := range d.conf.Pools {
		socket := filepath.Join(d.conf.PluginDir, p.Name+".sock")
		if known[p.Name] == socket {
			d.ok("podman", "knows pool "+p.Name)
			continue
		}
		d.warn("podman", "does not know pool "+p.Name,
			fmt.Sprintf("add to /etc/containers/containers.conf:\n[engine.volume_plugins]\n%s = %q", p.Name, socket))
	}
}

// podmanPlugins returns the volume drivers that podman is configured for, with their sockets.
func podmanPlugins(wrong func(file string, err error)) map[string]string {
	known := map[string]string{}
	for _, file := range containersConf() {
		var c struct {
			Engine struct {
				VolumePlugins map[string]string `toml:"volume_plugins"`
			} `toml:"engine"`
		}
		b, err := os.ReadFile(file)
		if err != nil {
			continue // podman passes over it too
		}
		if err := toml.Unmarshal(b, &c); err != nil {
			wrong(file, err)
		}
		maps.Copy(known, c.Engine.VolumePlugins)
	}
	return known
}

// containersConf returns the files that podman reads, the last one counts
// (containers.conf(5)).
func containersConf() []string {
	files := []string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}
	more, err := filepath.Glob("/etc/containers/containers.conf.d/*.conf")
	if err != nil {
		return files
	}
	return append(files, more...)
}
