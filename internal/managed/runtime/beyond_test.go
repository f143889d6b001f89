package runtime

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/mount"
)

// beyond is a driver of storage: in a container or as a program of the host, with a process that serves /dev/fuse and one
// that does nothing.
func (l *lab) beyond(t *testing.T, host bool) Plugin {
	t.Helper()
	p := l.plugin(t, "driver", "FUSE=1", "CHILD=1")
	p.Config.PropagatedMount, p.Unpublished = "", true
	p.ID = p.ID[:8] // for the path of its socket to be no longer than it may be
	p.Config.PidHost = true
	p.Beyond = Beyond{Word: "driver", Version: "1", Shared: []string{l.dir + "/mounts"}, Sockets: "/sockets", Serves: true}
	p.Settings.Env = append(p.Settings.Env, "SOCKET=/sockets/test.sock")
	if host {
		p.Command = []string{p.Rootfs + "/plugin"}
		p.Settings.Env[len(p.Settings.Env)-1] = "SOCKET=" + l.dir + "/run/" + p.ID + "/s/test.sock"
		p.Settings.Env = append(p.Settings.Env, "REMORA_TEST_PLUGIN=1")
		p.Rootfs = ""
	} else {
		dev := "/dev"
		p.Config.Linux.AllowAllDevices = true
		p.Config.Mounts = append(p.Config.Mounts, plugin.Mount{Source: &dev, Destination: "/dev", Type: "bind", Options: []string{"rbind", "rslave"}})
	}
	noErr(t, os.MkdirAll(l.dir+"/mounts", 0o755))
	noErr(t, mount.Share(l.dir+"/mounts"))
	t.Cleanup(func() {
		for _, pid := range l.serving(t, p.ID) {
			noErr(t, killPid(pid))
		}
		until(t, "the end of what served", func() bool { return len(l.serving(t, p.ID)) == 0 })
		dirs, err := cgroupDirs(servingCgroup(cgroupOf(p.ID)))
		noErr(t, err)
		noErr(t, removeCgroups(dirs))
		noErr(t, unmountBelow(l.dir+"/mounts", true))
	})
	return p
}

// serving are the processes that were kept.
func (l *lab) serving(t *testing.T, id string) []int {
	t.Helper()
	dirs, err := cgroupDirs(servingCgroup(cgroupOf(id)))
	noErr(t, err)
	return cgroupPids(dirs)
}

func (l *lab) within(t *testing.T, id string) []int {
	t.Helper()
	dirs, err := cgroupDirs(cgroupOf(id))
	noErr(t, err)
	pids := cgroupPids(dirs)
	slices.Sort(pids)
	return pids
}

func TestDriverInContainer(t *testing.T) { testDriver(t, false) }
func TestDriverOnHost(t *testing.T)      { testDriver(t, true) }

// testDriver: what a driver mounted and what serves it outlives the driver's death, the daemon's, a new version and the
// driver's stop; its other processes never do.
func testDriver(t *testing.T, host bool) {
	l := newLab(t)
	r := l.open(t)
	p := l.beyond(t, host)
	noErr(t, r.Start(t.Context(), p))
	call := caller{r.Socket(p.ID, "test.sock")}
	where := l.dir + "/mounts/v"
	call.get(t, "mount?dir="+where)
	read := func(when string) {
		t.Helper()
		if data, err := os.ReadFile(where + "/file"); err != nil || string(data) != "of the plugin" {
			t.Errorf("%s: the mount did not live on: %q, %v", when, data, err)
		}
	}
	read("at first")
	if all := l.within(t, p.ID); len(all) != 3 {
		t.Fatalf("its control group has %d processes: %v", len(all), all)
	}
	again := func(when string, change func()) {
		t.Helper()
		was := r.State(p.ID).Pid
		before := l.within(t, p.ID)
		before = slices.DeleteFunc(before, func(pid int) bool { return pid == was })
		change()
		until(t, "a start after "+when, func() bool { s := r.State(p.ID); return s.Status == Running && s.Pid != was })
		read(when)
		kept := l.serving(t, p.ID)
		for _, pid := range before {
			st, err := readStat(pid)
			there := err == nil && st.state != 'Z'
			if keeps := slices.Contains(kept, pid); keeps != there || keeps != serves(pid) {
				t.Errorf("%s: process %d: kept: %t, there: %t", when, pid, keeps, there)
			}
		}
	}
	again("its death", func() { noErr(t, killPid(r.State(p.ID).Pid)) })
	if n := len(l.serving(t, p.ID)); n != 1 {
		t.Errorf("%d processes serve, want 1", n)
	}
	again("a new version", func() {
		noErr(t, r.Close())
		r = l.open(t)
		p.Version = "2"
		noErr(t, r.Adopt(t.Context(), []Plugin{p}))
	})
	if n := len(l.serving(t, p.ID)); n != 2 {
		t.Errorf("%d processes serve, want 2", n)
	}
	was := r.State(p.ID).Pid
	noErr(t, r.Close())
	r = l.open(t)
	noErr(t, r.Adopt(t.Context(), []Plugin{p}))
	if s := r.State(p.ID); s.Pid != was || s.Status != Running {
		t.Errorf("it was not taken over: %+v", s)
	}
	// What is shared is another directory to one that was started before.
	noErr(t, r.Close())
	noErr(t, unmountBelow(l.dir+"/mounts", true))
	noErr(t, mount.Share(l.dir+"/mounts"))
	r = l.open(t)
	noErr(t, r.Adopt(t.Context(), []Plugin{p}))
	if pid := r.State(p.ID).Pid; (pid == was) != host {
		t.Errorf("process %d was followed by %d", was, pid)
	}
	was = r.State(p.ID).Pid
	call.get(t, "mount?dir="+where)
	read("the directory was shared anew")
	// Both die, and the daemon's successor finds neither.
	noErr(t, r.Close())
	noErr(t, killPid(was))
	r = l.open(t)
	noErr(t, r.Adopt(t.Context(), []Plugin{p}))
	until(t, "a start after the death of both", func() bool { s := r.State(p.ID); return s.Status == Running && s.Pid != was })
	read("the death of both")
	want := map[bool]int{false: 4, true: 3}[host]
	if n := len(l.serving(t, p.ID)); n != want {
		t.Errorf("%d processes serve, want %d", n, want)
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	read("its stop")
	if n := len(l.serving(t, p.ID)); n != want+1 {
		t.Errorf("%d processes serve, want %d", n, want+1)
	}
	if all := l.within(t, p.ID); len(all) != 0 {
		t.Errorf("processes %v are left", all)
	}
	if !strings.Contains(l.log.String(), "driver ended, and is started again") || strings.Contains(l.log.String(), "plugin ended") {
		t.Errorf("the log is %s", l.log)
	}
	noErr(t, unmountBelow(l.dir+"/mounts", true))
	for _, pid := range l.serving(t, p.ID) {
		noErr(t, killPid(pid))
	}
}

func TestProgramOfHostThatFails(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.beyond(t, true)
	p.Settings.Env = append(p.Settings.Env, "MODE=exit")
	err := r.Start(t.Context(), p)
	wants(t, err, `driver "driver": ended before it listened on "test.sock": exit status 3`, "the moon is missing")
	p.Command = []string{l.dir + "/none"}
	wants(t, r.Start(t.Context(), p), "/none: there is no such program")
	p.Command = []string{"none"}
	wants(t, r.Start(t.Context(), p), `command "none": not an absolute path`)
}

// TestGate: a program of the host whose daemon died before it was let go runs not a single instruction.
func TestGate(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.beyond(t, true)
	touched := filepath.Join(l.dir, "touched")
	p.Command = []string{"/bin/sh", "-c", "echo > " + touched}
	noErr(t, r.checkedPrepare(p))
	in := r.find(p.ID)
	proc, err := in.createOnHost()
	noErr(t, err)
	if all := l.within(t, p.ID); !slices.Contains(all, proc.pid) {
		t.Errorf("process %d is not in %v", proc.pid, all)
	}
	noErr(t, in.gate.Close())
	select {
	case <-proc.exited:
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
	if _, err := os.Stat(touched); err == nil {
		t.Error("it has run")
	}
	proc.close()
	in.gate = nil
}

func (r *Runtime) checkedPrepare(p Plugin) error {
	in, unlock, err := r.lock(context.Background(), p.ID)
	if err != nil {
		return err
	}
	defer unlock()
	return in.prepare(p)
}
