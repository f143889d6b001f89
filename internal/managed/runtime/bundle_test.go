package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/plugin"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func destinations(s *specs.Spec) (all []string) {
	for _, m := range s.Mounts {
		all = append(all, m.Destination)
	}
	return all
}

func namespaces(s *specs.Spec) (all []string) {
	for _, n := range s.Linux.Namespaces {
		all = append(all, string(n.Type))
	}
	return all
}

func TestSpec(t *testing.T) {
	dir := t.TempDir()
	base := Plugin{ID: "1", Name: "x:latest", Rootfs: dir, Config: plugin.Config{Entrypoint: []string{"/x", "y"}}}
	spec := func(t *testing.T, change func(*Plugin)) *specs.Spec {
		t.Helper()
		p := base
		change(&p)
		s, err := p.Spec("/sockets", "/group")
		noErr(t, err)
		return s
	}
	standard := []string{"/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm", "/run/docker/plugins"}
	src := "/src"

	t.Run("plain", func(t *testing.T) {
		s := spec(t, func(*Plugin) {})
		if diff := cmp.Diff(standard, destinations(s)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"mount", "network", "uts", "pid", "ipc"}, namespaces(s)); diff != "" {
			t.Error(diff)
		}
		p := s.Process
		if diff := cmp.Diff(&specs.Process{Args: []string{"/x", "y"}, Cwd: "/", Env: []string{defaultPath}, Capabilities: &specs.LinuxCapabilities{
			Bounding: defaultCapabilities(), Permitted: defaultCapabilities(), Effective: defaultCapabilities(),
		}}, p); diff != "" {
			t.Error(diff)
		}
		if s.Root.Readonly || s.Linux.Seccomp != nil || s.Linux.RootfsPropagation != "" || s.Linux.CgroupsPath != "/group" || len(s.Linux.MaskedPaths) == 0 {
			t.Errorf("spec is %+v", s.Linux)
		}
		if n := len(s.Linux.Resources.Devices); n != 8 || s.Linux.Resources.Devices[0].Allow || s.Linux.Resources.Devices[7].Allow {
			t.Errorf("devices are %+v", s.Linux.Resources.Devices)
		}
	})
	t.Run("process", func(t *testing.T) {
		s := spec(t, func(p *Plugin) {
			p.Settings = plugin.Settings{Args: []string{"a", "", "b"}, Env: []string{"K=v"}}
			p.Config.WorkDir = "/w"
			p.Config.User = plugin.User{UID: 7, GID: 8}
			p.Config.Linux.Capabilities = []string{"CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_SYS_ADMIN"}
		})
		if diff := cmp.Diff([]string{"/x", "y", "a", "", "b"}, s.Process.Args); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{defaultPath, "K=v"}, s.Process.Env); diff != "" {
			t.Error(diff)
		}
		if s.Process.Cwd != "/w" || s.Process.User.UID != 0 || s.Process.User.GID != 0 {
			t.Errorf("process is %+v", s.Process)
		}
		c := s.Process.Capabilities
		for _, set := range [][]string{c.Bounding, c.Permitted, c.Effective} {
			if diff := cmp.Diff(append(defaultCapabilities(), "CAP_SYS_ADMIN"), set); diff != "" {
				t.Error(diff)
			}
		}
		if diff := cmp.Diff([]string{"CAP_SYS_ADMIN", "CAP_CHOWN"}, c.Inheritable); diff != "" {
			t.Error(diff)
		}
		s = spec(t, func(p *Plugin) { p.HonorUser, p.Config.User = true, plugin.User{UID: 7, GID: 8} })
		if s.Process.User.UID != 7 || s.Process.User.GID != 8 {
			t.Errorf("user is %+v", s.Process.User)
		}
	})
	t.Run("namespaces", func(t *testing.T) {
		s := spec(t, func(p *Plugin) {
			p.Config.Network.Type, p.Config.PidHost, p.Config.IpcHost = "host", true, true
		})
		if diff := cmp.Diff([]string{"mount", "uts"}, namespaces(s)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(append(slices.Clone(standard), "/etc/hosts", "/etc/resolv.conf"), destinations(s)); diff != "" {
			t.Error(diff)
		}
		for _, kind := range []string{"none", "bridge"} {
			s = spec(t, func(p *Plugin) { p.Config.Network.Type = kind })
			if !slices.Contains(namespaces(s), "network") || !slices.Contains(destinations(s), "/etc/hosts") {
				t.Errorf("%s: %q, %q", kind, namespaces(s), destinations(s))
			}
		}
	})
	t.Run("mounts", func(t *testing.T) {
		for _, tt := range []struct {
			name       string
			own        []string
			propagated string
			want       []string
		}{
			{"dev is its own", []string{"/dev"}, "", []string{"/proc", "/sys", "/sys/fs/cgroup", "/dev"}},
			{"sys is its own", []string{"/sys/"}, "", []string{"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys/"}},
			{"one below dev", []string{"/dev/shm"}, "", []string{"/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"}},
			{"proc stays", []string{"/proc"}, "", append(slices.Clone(standard[:7]), "/proc")},
			{"the one below comes after", []string{"/a/b", "/z", "/a"}, "/z/v", append(slices.Clone(standard[:7]), "/z", "/a", "/z/v", "/a/b")},
			{"device of a like name", []string{"/devices"}, "", append(slices.Clone(standard[:7]), "/devices")},
		} {
			t.Run(tt.name, func(t *testing.T) {
				s := spec(t, func(p *Plugin) {
					for _, dest := range tt.own {
						p.Config.Mounts = append(p.Config.Mounts, mounts("", &src, dest)...)
					}
					p.Config.PropagatedMount, p.Propagated = tt.propagated, "/host"
				})
				if diff := cmp.Diff(append(tt.want, "/run/docker/plugins"), destinations(s)); diff != "" {
					t.Error(diff)
				}
			})
		}
	})
	t.Run("settings win", func(t *testing.T) {
		set := "/set"
		s := spec(t, func(p *Plugin) {
			p.Config.Mounts = append(mounts("m", nil, "/m"), mounts("n", &src, "/n")...)
			p.Settings.Mounts = append(mounts("m", &set, "/m"), mounts("new", &set, "/etc")...)
		})
		var got []string
		for _, m := range s.Mounts[7:] {
			got = append(got, m.Source+" "+m.Destination)
		}
		if diff := cmp.Diff([]string{"/set /m", "/src /n", "/sockets /run/docker/plugins"}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("propagated", func(t *testing.T) {
		s := spec(t, func(p *Plugin) { p.Config.PropagatedMount, p.Propagated = "/vol", "/host" })
		want := specs.Mount{Source: "/host", Destination: "/vol", Type: "bind", Options: []string{"rbind", "rw", "rshared"}}
		if diff := cmp.Diff(want, s.Mounts[7]); diff != "" || s.Linux.RootfsPropagation != "rshared" {
			t.Error(diff, s.Linux.RootfsPropagation)
		}
	})
	t.Run("devices", func(t *testing.T) {
		noErr(t, os.MkdirAll(dir+"/nodes/deep", 0o755))
		noErr(t, os.Symlink("/dev/null", dir+"/nodes/link"))
		s := spec(t, func(p *Plugin) { p.Settings.Devices = append(devices("/dev/null"), devices(dir+"/nodes/link")...) })
		var got []string
		for _, d := range s.Linux.Devices {
			got = append(got, d.Path)
		}
		if diff := cmp.Diff([]string{"/dev/null", dir + "/nodes/link"}, got); diff != "" {
			t.Error(diff)
		}
		last := s.Linux.Resources.Devices[len(s.Linux.Resources.Devices)-1]
		if !last.Allow || *last.Major != 1 || *last.Minor != 3 || last.Type != "c" || last.Access != "rwm" {
			t.Errorf("the rule is %+v", last)
		}
		s = spec(t, func(p *Plugin) { p.Config.Linux.AllowAllDevices = true })
		if diff := cmp.Diff([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, s.Linux.Resources.Devices); diff != "" {
			t.Error(diff)
		}
		p := base
		p.Settings.Devices = devices(dir + "/nodes")
		_, err := p.Spec("/s", "/g")
		wants(t, err, "a directory without devices")
	})
	if len(base.Config.Linux.Capabilities) != 0 || len(base.Settings.Env) != 0 {
		t.Error("the plugin was changed")
	}
}

// TestSkeletonHostile: a rootfs whose links lead outside has nothing made outside.
func TestSkeletonHostile(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	noErr(t, os.Mkdir(outside, 0o755))
	for _, link := range []string{"etc", "dev", ".dockerenv"} {
		rootfs := filepath.Join(dir, "rootfs-"+link)
		noErr(t, os.Mkdir(rootfs, 0o755))
		target := outside
		if link == ".dockerenv" {
			target = outside + "/made"
		}
		noErr(t, os.Symlink(target, filepath.Join(rootfs, link)))
		_ = skeleton(rootfs) // an error, or none where the link is left alone
		if entries, _ := os.ReadDir(outside); len(entries) > 0 {
			t.Errorf("%s: %s was made outside", link, entries[0].Name())
		}
	}
}

func TestSecrets(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "secret:latest", "KEY=public", "OTHER=x")
	file := l.dir + "/key"
	noErr(t, os.WriteFile(file, []byte("s3cr3t word\n"), 0o600))
	p.Secrets = map[string]string{"KEY": file}
	noErr(t, r.Start(t.Context(), p))
	env := l.caller("secret").env(t)
	if !slices.Contains(env, "KEY=s3cr3t word") || slices.Contains(env, "KEY=public") {
		t.Errorf("environment is %q", env)
	}
	found := func() (in []string) {
		_ = filepath.WalkDir(l.dir, func(path string, e os.DirEntry, _ error) error {
			if data, err := os.ReadFile(path); err == nil && path != file && e.Name() != "plugin" && e.Type().IsRegular() && strings.Contains(string(data), "s3cr3t") {
				in = append(in, path)
			}
			return nil
		})
		return in
	}
	if in := found(); in != nil {
		t.Errorf("the secret is in %q", in)
	}
	var out syncBuffer
	_, err := r.Exec(t.Context(), p.ID, []string{"/plugin", "tool", "env"}, Stdio{Out: &out})
	noErr(t, err)
	if !strings.Contains(out.String(), "OTHER=x") {
		t.Errorf("a program in it has %q", out.String())
	}
	if data, err := json.Marshal(r.States()); err != nil || strings.Contains(string(data)+l.log.String()+out.String(), "s3cr3t") {
		t.Error("the secret is shown")
	}
	// It is read anew at each start.
	noErr(t, os.WriteFile(file, []byte("n3w"), 0o600))
	l.caller("secret").call(t.Context(), "exit?code=1")
	until(t, "a restart", func() bool { return r.State(p.ID).Restarts == 1 && r.State(p.ID).Status == Running })
	if env := l.caller("secret").env(t); !slices.Contains(env, "KEY=n3w") {
		t.Errorf("environment is %q", env)
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	noErr(t, os.Chmod(file, 0o644))
	wants(t, r.Start(t.Context(), p), `secret "KEY": file `+file+": others may read it (mode 0644)")
	noErr(t, os.WriteFile(file, []byte("a\x00b"), 0o600))
	noErr(t, os.Chmod(file, 0o600))
	wants(t, r.Start(t.Context(), p), "want text without a NUL")
}
