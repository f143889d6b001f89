package runtime

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestStartAndStop(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "who/what:latest", "A=b")
	noErr(t, r.Start(t.Context(), p))
	noErr(t, r.Start(t.Context(), p)) // changes nothing
	s := r.State(p.ID)
	if s.Status != Running || s.Pid == 0 || s.Name != p.Name || s.Restarts != 0 || s.Last != nil || s.Since.IsZero() {
		t.Errorf("state is %+v", s)
	}
	for _, name := range []string{"who/what", "who/what:latest"} {
		if env := l.caller(name).env(t); !slices.Contains(env, "A=b") {
			t.Errorf("environment is %q", env)
		}
	}
	fi, err := os.Lstat(l.dir + "/plugins/who/what.sock")
	noErr(t, err)
	if fi.Mode().Type() != os.ModeSocket {
		t.Errorf("an engine would not list %s", fi.Mode())
	}
	l.caller("who/what").get(t, "mount?dir=/volumes/v1")
	l.caller("who/what").get(t, "mount?dir=/elsewhere")
	if data, err := os.ReadFile(p.Propagated + "/v1/file"); err != nil || string(data) != "of the plugin" {
		t.Errorf("the host sees %q, %v", data, err)
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	l.clean(t)
	if _, err := os.Stat(p.Propagated + "/v1"); err != nil {
		t.Errorf("a file of the plugin is gone: %v", err)
	}
	if s := r.State(p.ID); s.Status != Stopped {
		t.Errorf("state is %+v", s)
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	noErr(t, r.Start(t.Context(), p))
	noErr(t, r.Remove(t.Context(), p.ID))
	if _, err := os.Stat(l.dir + "/lib/" + p.ID); err == nil {
		t.Error("the log is still there")
	}
}

func TestStartFails(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	r.limits.ready = 500 * time.Millisecond
	missing := "/nowhere/at/all"
	for _, tt := range []struct {
		name   string
		change func(*Plugin)
		class  error
		parts  []string
	}{
		{
			"ends", func(p *Plugin) { p.Settings.Env = []string{"MODE=exit"} }, errdefs.ErrUnavailable,
			[]string{`plugin "ends:t1": ended before it listened on "test.sock": exit status 3; its last words: `, "hello from [ends:t1]", "cannot go on:", "the moon is missing"},
		},
		{
			"is mute", func(p *Plugin) { p.Settings.Env = []string{"MODE=mute"} }, errdefs.ErrUnavailable,
			[]string{`did not listen on "test.sock" within 500ms; its last words: `, "thinking about it"},
		},
		{"no program", func(p *Plugin) { p.Config.Entrypoint = []string{"/none"} }, nil, []string{"/none", "no such file or directory"}},
		{"no entrypoint", func(p *Plugin) { p.Config.Entrypoint, p.Settings.Args = nil, nil }, errdefs.ErrInvalid, []string{"no entrypoint"}},
		{"no socket", func(p *Plugin) { p.Config.Interface.Socket = "" }, errdefs.ErrInvalid, []string{"no interface.socket"}},
		{"socket elsewhere", func(p *Plugin) { p.Config.Interface.Socket = "../x.sock" }, errdefs.ErrInvalid, []string{"not the name of a file"}},
		{"name", func(p *Plugin) { p.Name = "../../etc/x:latest" }, errdefs.ErrInvalid, []string{"not a name"}},
		{"mount unset", func(p *Plugin) { p.Config.Mounts = mounts("data", nil, "/data") }, errdefs.ErrInvalid, []string{`mount "data": its source is not set`}},
		{"mount missing", func(p *Plugin) { p.Config.Mounts = mounts("data", &missing, "/data") }, nil, []string{missing, "no such file"}},
		{"device missing", func(p *Plugin) { p.Settings.Devices = devices("/dev/none") }, errdefs.ErrInvalid, []string{`device "/dev/none": no such file or directory`}},
		{"device is none", func(p *Plugin) { p.Settings.Devices = devices("/etc/passwd") }, errdefs.ErrInvalid, []string{`device "/etc/passwd": not a device`}},
		{"secret missing", func(p *Plugin) { p.Secrets = map[string]string{"KEY": missing} }, errdefs.ErrInvalid, []string{`secret "KEY": file /nowhere/at/all: is not there`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := l.plugin(t, strings.ReplaceAll(tt.name, " ", "-")+":t1")
			tt.change(&p)
			err := r.Start(t.Context(), p)
			wants(t, err, tt.parts...)
			if tt.class != nil && !errors.Is(err, tt.class) {
				t.Errorf("%q is of class %v", err, errdefs.Class(err))
			}
			l.clean(t)
			if s := r.State(p.ID); s.Status != Stopped {
				t.Errorf("state is %+v", s)
			}
		})
	}
}

func TestUser(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "user:latest")
	p.Config.User = plugin.User{UID: 1234, GID: 567}
	for _, tt := range []struct {
		honor bool
		want  string
	}{{false, "0"}, {true, "1234"}} {
		p.HonorUser = tt.honor
		noErr(t, r.Start(t.Context(), p))
		_, after, _ := strings.Cut(l.caller("user").get(t, "cat?file=/proc/self/status"), "\nUid:")
		if got := strings.Fields(after)[0]; got != tt.want {
			t.Errorf("honor %v: it runs as %s", tt.honor, got)
		}
		noErr(t, r.Stop(t.Context(), p.ID, 0))
	}
}

// TestSandbox looks from inside at what a plugin is given.
func TestSandbox(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	outside := "lo"
	links, err := net.Interfaces()
	noErr(t, err)
	if len(links) > 1 {
		outside = links[1].Name
	}
	for _, tt := range []struct {
		name   string
		change func(*Plugin)
		file   string
		has    string
		lacks  string
	}{
		{"host network", func(p *Plugin) { p.Config.Network.Type = "host" }, "/proc/net/dev", outside + ":", ""},
		{"no network", func(*Plugin) {}, "/proc/net/dev", "lo:", strings.TrimPrefix(outside+":", "lo:")},
		{"host pid", func(p *Plugin) { p.Config.PidHost = true }, "/proc/1/cmdline", "", "/plugin"},
		{"own pid", func(*Plugin) {}, "/proc/1/cmdline", "/plugin", ""},
		{"no seccomp", func(*Plugin) {}, "/proc/self/status", "Seccomp:\t0\n", ""},
		{"extra capability", func(*Plugin) {}, "/proc/self/status", "CapBnd:\t00000000a82425fb\n", ""},
		{"ordinary capabilities", func(p *Plugin) { p.Config.Linux.Capabilities = nil }, "/proc/self/status", "CapBnd:\t00000000a80425fb\n", ""},
		{"own dev", func(p *Plugin) {
			dev := "/dev"
			p.Config.Mounts, p.Config.Linux.AllowAllDevices = mounts("dev", &dev, "/dev"), true
		}, "/proc/self/mountinfo", " /dev rw", " /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm"},
		{"work directory", func(p *Plugin) { p.Config.WorkDir = "/made/for/it" }, "/made/for/it/../../../proc/self/comm", "plugin", ""},
		{"docker", func(*Plugin) {}, "/.dockerenv", "", "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := l.plugin(t, strings.ReplaceAll(tt.name, " ", "-")+":latest")
			tt.change(&p)
			noErr(t, r.Start(t.Context(), p))
			text := l.caller(strings.TrimSuffix(p.Name, ":latest")).get(t, "cat?file="+tt.file)
			if !strings.Contains(text, tt.has) || tt.lacks != "" && strings.Contains(text, tt.lacks) {
				t.Errorf("%s is %q", tt.file, text)
			}
			noErr(t, r.Stop(t.Context(), p.ID, 0))
		})
	}
	l.clean(t)
}

func TestNameOfAnother(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	theirs := l.plugin(t, "x:latest")
	noErr(t, r.Start(t.Context(), theirs))
	mine := l.plugin(t, "y:latest")
	mine.Name = "x:latest"
	err := r.Start(t.Context(), mine)
	wants(t, err, "/plugins/x.sock: another plugin listens there")
	if !errors.Is(err, errdefs.ErrExists) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("%v has class %v", err, errdefs.Class(err))
	}
	l.caller("x").get(t, "pid")
	// A socket that nobody listens on is in nobody's way.
	noErr(t, r.Stop(t.Context(), theirs.ID, 0))
	ln, err := listenIn(l.dir+"/plugins", "x.sock")
	noErr(t, err)
	ln.Close()
	noErr(t, r.Start(t.Context(), mine))
	l.caller("x:latest").get(t, "pid")
}

func TestStubborn(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "stubborn:latest", "MODE=stubborn", "CHILD=1")
	p.Config.PidHost = true
	noErr(t, r.Start(t.Context(), p))
	begin := time.Now()
	noErr(t, r.Stop(t.Context(), p.ID, 300*time.Millisecond))
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("it had %s to end", took)
	}
	l.clean(t)
}

// TestStopBusy: a mount that is in use, and hides another, is unmounted too, and no file on the other side is touched.
func TestStopBusy(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "busy:latest")
	host := l.dir + "/host"
	noErr(t, os.Mkdir(host, 0o755))
	noErr(t, os.WriteFile(host+"/precious", nil, 0o600))
	p.Config.Mounts = mounts("host", &host, "/host")
	noErr(t, r.Start(t.Context(), p))
	l.caller("busy").get(t, "mount?dir=/volumes/v")
	l.caller("busy").get(t, "mount?dir=/volumes/v")
	l.caller("busy").get(t, "mount?dir=/volumes/v/below")
	f, err := os.Open(p.Propagated + "/v/below/file")
	noErr(t, err)
	defer f.Close()
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	l.clean(t)
	if _, err := os.Stat(host + "/precious"); err != nil {
		t.Error(err)
	}
	// What is mounted in a directory that is deleted is not deleted.
	noErr(t, os.MkdirAll(l.dir+"/tree/in", 0o755))
	noErr(t, mount.Mount(host, l.dir+"/tree/in", "none", 0x1000 /* MS_BIND */, ""))
	noErr(t, removeTree(l.dir+"/tree"))
	if _, err := os.Stat(host + "/precious"); err != nil {
		t.Error(err)
	}
}
