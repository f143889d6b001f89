package runtime

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/plugin"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// socketsDir is where a plugin makes its sockets.
const socketsDir = "/run/docker/plugins"

// Spec returns the container of a plugin, as engines make it, whose directory of sockets is sockets. Secrets
// are not in it.
func (p *Plugin) Spec(sockets, cgroup string) (*specs.Spec, error) {
	s := defaultSpec()
	s.Root.Path = p.Rootfs
	s.Linux.CgroupsPath = cgroup
	if err := p.mounts(s, sockets); err != nil {
		return nil, err
	}
	switch p.Config.Network.Type {
	case "":
	case "host":
		dropNamespace(s, specs.NetworkNamespace)
		fallthrough
	default:
		for _, file := range []string{"/etc/hosts", "/etc/resolv.conf"} {
			// A host may have none; what is then in the rootfs is as good.
			if _, err := os.Stat(file); err == nil {
				s.Mounts = append(s.Mounts, specs.Mount{Source: file, Destination: file, Type: "bind", Options: []string{"rbind", "ro"}})
			}
		}
	}
	if p.Config.PidHost {
		dropNamespace(s, specs.PIDNamespace)
	}
	if p.Config.IpcHost {
		dropNamespace(s, specs.IPCNamespace)
	}
	if err := p.devices(s); err != nil {
		return nil, err
	}
	s.Process.Args = slices.Concat(p.Config.Entrypoint, p.Settings.Args)
	s.Process.Env = append([]string{defaultPath}, p.Settings.Env...)
	s.Process.Cwd = cmp.Or(p.Config.WorkDir, "/")
	if p.HonorUser {
		s.Process.User = specs.User{UID: p.Config.User.UID, GID: p.Config.User.GID}
	}
	p.capabilities(s.Process.Capabilities)
	return s, nil
}

func dropNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

// mounts adds those of the plugin, and leaves out those that every container has where the plugin brings its own
// for the same place or one above: its /dev would else be hidden (moby issue 36698). /proc stays whatever it
// brings, as runc wants it. Where one is below another it comes after it; else the order is the config's.
func (p *Plugin) mounts(s *specs.Spec, sockets string) error {
	var own []specs.Mount
	if dest := p.Config.PropagatedMount; dest != "" {
		own = append(own, specs.Mount{Source: p.Propagated, Destination: dest, Type: "bind", Options: []string{"rbind", "rw", "rshared"}})
		s.Linux.RootfsPropagation = "rshared"
	}
	for _, dir := range p.Shared {
		own = append(own, specs.Mount{Source: dir, Destination: dir, Type: "bind", Options: []string{"rbind", "rw", "rshared"}})
		s.Linux.RootfsPropagation = "rshared"
	}
	for _, m := range p.effectiveMounts() {
		if m.Source == nil {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "mount %q: its source is not set", cmp.Or(m.Name, m.Destination)),
				"Whoever made the plugin has to give it one in config.json, which may be empty: what is null there cannot be set.")
		}
		if !path.IsAbs(m.Destination) {
			return errdefs.Errorf(errdefs.ErrInvalid, "mount %q: destination %q is not an absolute path", m.Name, m.Destination)
		}
		own = append(own, specs.Mount{Source: *m.Source, Destination: m.Destination, Type: m.Type, Options: m.Options})
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	s.Mounts = slices.DeleteFunc(s.Mounts, func(d specs.Mount) bool {
		return d.Destination != "/proc" && slices.ContainsFunc(own, func(m specs.Mount) bool { return within(d.Destination, path.Clean(m.Destination)) })
	})
	s.Mounts = append(s.Mounts, own...)
	s.Mounts = append(s.Mounts, specs.Mount{Source: sockets, Destination: cmp.Or(p.Beyond.Sockets, socketsDir), Type: "bind", Options: []string{"rbind", "rshared"}})
	return nil
}

// effectiveMounts are the settings', and where they are silent about one the config's.
func (p *Plugin) effectiveMounts() []plugin.Mount {
	mounts := slices.Clone(p.Config.Mounts)
	for i, m := range mounts {
		for _, set := range p.Settings.Mounts {
			if set.Name == m.Name && set.Destination == m.Destination && set.Source != nil {
				mounts[i].Source = set.Source
			}
		}
	}
	return mounts
}

func depth(dest string) int {
	return strings.Count(strings.TrimRight(path.Clean(dest), "/"), "/")
}

func within(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimRight(dir, "/")+"/")
}

func (p *Plugin) capabilities(c *specs.LinuxCapabilities) {
	for _, extra := range p.Config.Linux.Capabilities {
		for _, set := range []*[]string{&c.Bounding, &c.Permitted, &c.Effective, &c.Inheritable} {
			if !slices.Contains(*set, extra) {
				*set = append(*set, extra)
			}
		}
	}
}

func (p *Plugin) devices(s *specs.Spec) error {
	if p.Config.Linux.AllowAllDevices {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	for _, d := range p.Settings.Devices {
		if d.Path == nil {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "device %q: its path is not set", d.Name),
				"Whoever made the plugin has to give it one in config.json, which may be empty: what is null there cannot be set.")
		}
		if *d.Path == "" {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "device %q: its path is not set", d.Name),
				fmt.Sprintf("Set it: %s.path=/dev/name", d.Name))
		}
		if err := addDevices(s, *d.Path); err != nil {
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("device %q: %w", *d.Path, err))
		}
	}
	return nil
}

// addDevices adds a device, or all that are in a directory and below it. A link is followed, as by the engine.
func addDevices(s *specs.Spec, name string) error {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return plain(err)
	}
	fi, err := os.Stat(target)
	if err != nil {
		return plain(err)
	}
	if !fi.IsDir() {
		return addDevice(s, target, name)
	}
	found := false
	err = filepath.WalkDir(target, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if e.Type()&fs.ModeDevice == 0 {
			return nil // such as links, and sockets
		}
		found = true
		return addDevice(s, file, path.Join(name, strings.TrimPrefix(file, target)))
	})
	if err == nil && !found {
		err = errors.New("a directory without devices")
	}
	return err
}

func addDevice(s *specs.Spec, file, inside string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	var kind string
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return errors.New("not a device")
	}
	mode := fs.FileMode(st.Mode &^ unix.S_IFMT)
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{
		Path: inside, Type: kind, Major: major, Minor: minor, FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
	})
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow: true, Type: kind, Major: &major, Minor: &minor, Access: "rwm",
	})
	return nil
}

// plain takes from an error the path that the text around it has already.
func plain(err error) error {
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		return perr.Err
	}
	return err
}

// writeBundle writes the spec, with the secrets in it.
func writeBundle(dir string, s *specs.Spec, secrets []string) error {
	with := *s
	process := *s.Process
	process.Env = slices.Concat(process.Env, secrets)
	with.Process = &process
	data, err := json.Marshal(&with)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}

// skeleton makes in a rootfs what an engine makes in that of each container. Links in it lead nowhere outside.
func skeleton(rootfs string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, dir := range []string{"dev/pts", "dev/shm", "proc", "sys", "etc"} {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make /%s in its rootfs: %w", dir, plain(err))
		}
	}
	for _, file := range []string{".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "dev/console"} {
		if _, err := root.Lstat(file); err == nil {
			continue
		}
		f, err := root.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			return fmt.Errorf("make /%s in its rootfs: %w", file, plain(err))
		}
		_ = f.Close()
	}
	if _, err := root.Lstat("etc/mtab"); err != nil {
		if err := root.Symlink("/proc/mounts", "etc/mtab"); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make /etc/mtab in its rootfs: %w", plain(err))
		}
	}
	return nil
}
