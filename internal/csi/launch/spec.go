package launch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const (
	socketName = "csi.sock"
	// insideDir is where an image has the directory of its socket.
	insideDir = "/csi"
)

// spec is what the runtime runs.
func (p *Process) spec(img image) (runtime.Plugin, error) {
	run := runtime.Plugin{
		ID: p.id, Name: p.c.Pool, Unpublished: true, Secrets: map[string]string{},
		Config: plugin.Config{Interface: plugin.Interface{Socket: socketName}},
		Beyond: runtime.Beyond{Word: "CSI driver", Serves: true},
	}
	values := map[string]string{"CSI_ENDPOINT": "unix://" + p.Endpoint(), "NODE_ID": p.c.NodeID, "NODE": p.c.NodeID}
	var argv []string
	if p.kind == Image {
		values["CSI_ENDPOINT"] = "unix://" + insideDir + "/" + socketName
		argv = slices.Concat(img.Config.Entrypoint, img.Config.Cmd)
		switch {
		case len(p.c.Command) > 0:
			argv = slices.Concat(p.c.Command, p.c.Args)
		case len(p.c.Args) > 0:
			argv = slices.Concat(img.Config.Entrypoint, p.c.Args)
		}
		if len(argv) == 0 {
			return run, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "image %s: says no program to run", img.Reference), "give it as command")
		}
		if err := p.container(&run, img); err != nil {
			return run, err
		}
	} else {
		argv = p.c.Command
	}
	argv, err := substituteAll(argv, values)
	if err != nil {
		return run, err
	}
	if p.kind == Image {
		run.Config.Entrypoint = argv
	} else {
		run.Command = argv
	}
	env := []string{"CSI_ENDPOINT=" + values["CSI_ENDPOINT"], "NODE_ID=" + values["NODE_ID"]}
	own, err := substituteAll(p.c.Env, values)
	if err != nil {
		return run, err
	}
	for _, e := range lastOf(slices.Concat(img.Config.Env, p.c.Extra.Env, env, own)) {
		name, value, _ := strings.Cut(e, "=")
		if from, ok := secretRef(value); ok && slices.Contains(own, e) {
			run.Secrets[name] = from
			continue
		}
		run.Settings.Env = append(run.Settings.Env, e)
	}
	run.Version, err = fingerprint(run)
	return run, err
}

// container gives a driver in an image what of the host it needs: devices, the kernel's tables, and to see all processes, so
// that its FUSE daemons can outlive it.
func (p *Process) container(run *runtime.Plugin, img image) error {
	run.Rootfs = filepath.Join(p.c.Dir, img.Rootfs)
	run.Sockets = insideDir
	run.Shared = []string{p.c.Mounts}
	c := &run.Config
	c.WorkDir = img.Config.WorkingDir
	c.PidHost, c.IpcHost, c.Network = true, true, plugin.NetworkConfig{Type: "host"}
	c.Linux.AllowAllDevices = true
	var err error
	if c.Linux.Capabilities, err = capabilities(p.c.Caps, permitted(ownStatus())); err != nil {
		return err
	}
	// What is mounted there by the host later is seen, and what the driver mounts there is not the host's.
	add := func(b bind) {
		options := []string{"rbind", "rslave"}
		if b.readOnly {
			options = append(options, "ro")
		}
		c.Mounts = append(c.Mounts, plugin.Mount{Name: b.inside, Source: &b.source, Destination: b.inside, Type: "bind", Options: options})
	}
	add(bind{"/dev", "/dev", false})
	add(bind{"/sys", "/sys", false})
	for _, dir := range []string{"/lib/modules", "/run/udev"} {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			add(bind{dir, dir, true})
		}
	}
	binds := slices.Clone(p.c.Extra.binds)
	for _, text := range p.c.Binds {
		b, err := parseBind(text)
		if err != nil {
			return err
		}
		binds = append(binds, b)
	}
	for _, b := range binds {
		if _, err := os.Stat(b.source); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "key %q: %s: there is no such file or directory on the host", "binds", b.source)
		}
		add(b)
	}
	return nil
}

func substituteAll(texts []string, values map[string]string) ([]string, error) {
	out := make([]string, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = substitute(text, values); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lastOf keeps the last value of each variable, in the order in which they came.
func lastOf(env []string) []string {
	var out []string
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		later := slices.ContainsFunc(env[i+1:], func(o string) bool { return strings.HasPrefix(o, name+"=") })
		if !later {
			out = append(out, e)
		}
	}
	return out
}

// fingerprint changes with all that a driver is started with, but for what is in its secrets.
func fingerprint(run runtime.Plugin) (string, error) {
	data, err := json.Marshal(run)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}

// known are the capabilities of linux/capability.h in the order of their numbers.
var known = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// usual are what drivers of storage need to mount and format, to grow an ext4 that is mounted, and to open a dm-crypt. A
// daemon that lacks one starts drivers without it.
var usual = []string{"SYS_ADMIN", "SYS_RESOURCE", "DAC_READ_SEARCH", "IPC_LOCK", "SYS_RAWIO"}

// capabilities returns those that a driver has besides any container's. What is asked for by name it has or is not started.
func capabilities(asked []string, have uint64) ([]string, error) {
	var out []string
	given := func(name string) bool { return have&(1<<slices.Index(known, name)) != 0 }
	if len(asked) == 0 {
		for _, name := range usual {
			if given(name) {
				out = append(out, "CAP_"+name)
			}
		}
		return out, nil
	}
	for _, text := range asked {
		name := strings.TrimPrefix(strings.ToUpper(text), "CAP_")
		switch {
		case name == "ALL":
			for _, name := range known {
				if given(name) {
					out = append(out, "CAP_"+name)
				}
			}
		case slices.Contains(known, name):
			out = append(out, "CAP_"+name)
		default:
			return nil, catalog.Unknown("capability", name, append([]string{"ALL"}, known...))
		}
	}
	return out, nil
}

func ownStatus() string {
	data, _ := os.ReadFile("/proc/self/status")
	return string(data)
}

// permitted reads what a process may have of proc_pid_status(5).
func permitted(status string) uint64 {
	_, after, _ := strings.Cut(status, "\nCapPrm:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	have, _ := strconv.ParseUint(fields[0], 16, 64)
	return have
}

// idOf makes the ID of a pool's driver, which is also the name of its control group, and so no other's on the host.
func idOf(runDir string) string {
	sum := sha256.Sum256([]byte(runDir))
	return fmt.Sprintf("csi%x", sum[:5])
}
