package runtime

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRestart(t *testing.T) {
	l := newLab(t)
	var mu sync.Mutex
	var seen []Status
	noErr(t, os.MkdirAll(l.dir+"/plugins", 0o755))
	opts := l.options()
	opts.Changed = func(s State) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, s.Status)
	}
	r, err := Open(opts)
	noErr(t, err)
	r.limits = fast()
	defer func() { noErr(t, r.Close()) }()
	p := l.plugin(t, "crash:latest")
	noErr(t, r.Start(t.Context(), p))
	defer func() { noErr(t, r.Stop(context.WithoutCancel(t.Context()), p.ID, 0)) }()
	call := l.caller("crash")
	call.get(t, "mount?dir=/volumes/v1")
	first := r.State(p.ID)
	_, _ = call.call(t.Context(), "exit?code=7")
	until(t, "its end", func() bool { return r.State(p.ID).Last != nil })
	// A caller notices nothing but the time it takes.
	if pid := call.get(t, "pid"); pid != "1" {
		t.Errorf("pid %s", pid)
	}
	until(t, "a restart", func() bool { return r.State(p.ID).Status == Running && r.State(p.ID).Restarts == 1 })
	s := r.State(p.ID)
	if s.Pid == first.Pid || s.Last == nil || s.Last.String() != "exit status 7" || !s.Next.IsZero() {
		t.Errorf("state is %+v", s)
	}
	if data, err := os.ReadFile(p.Propagated + "/v1/file"); err != nil || string(data) != "of the plugin" {
		t.Errorf("the mount did not live on: %q, %v", data, err)
	}
	noErr(t, killPid(s.Pid))
	until(t, "a restart", func() bool { return r.State(p.ID).Restarts == 2 && r.State(p.ID).Status == Running })
	if got := r.State(p.ID).Last.String(); got != "signal 9" {
		t.Errorf("it ended by %q", got)
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	l.clean(t)
	mu.Lock()
	defer mu.Unlock()
	want := []Status{Starting, Running, Restarting, Running, Restarting, Running, Stopping, Stopped}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
}

// TestCrashLoop: a plugin that does not come up again is tried with longer and longer waits, all of which a person can
// see, and can be stopped in between.
func TestCrashLoop(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "loop:latest", "CRASHES=3")
	noErr(t, os.WriteFile(p.Rootfs+"/crashes", []byte("xxx"), 0o600))
	noErr(t, r.Start(t.Context(), p))
	noErr(t, os.Remove(p.Rootfs+"/crashes"))
	began := time.Now()
	_, _ = l.caller("loop").call(t.Context(), "exit?code=1")
	until(t, "a failure", func() bool { return r.State(p.ID).Error != "" })
	s := r.State(p.ID)
	if s.Status != Restarting || s.Since.Before(began) || s.Next.IsZero() || !strings.Contains(s.Error, "exit status 4") {
		t.Errorf("state is %+v", s)
	}
	l.caller("loop").get(t, "pid") // waits
	if s := r.State(p.ID); s.Restarts != 4 || s.Error != "" {
		t.Errorf("state is %+v", s)
	}
	noErr(t, os.Remove(p.Rootfs+"/plugin"))
	_, _ = l.caller("loop").call(t.Context(), "exit?code=1")
	until(t, "a failure", func() bool { return strings.Contains(r.State(p.ID).Error, "no such file") })
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	l.clean(t)
}

func TestBackOff(t *testing.T) {
	r := &Runtime{limits: defaultLimits()}
	var got []string
	for n := range 10 {
		got = append(got, r.backOff(n).String())
	}
	want := []string{"100ms", "200ms", "400ms", "800ms", "1.6s", "3.2s", "6.4s", "12.8s", "20s", "20s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r.backOff(100000) != 20*time.Second {
		t.Error("it overflows")
	}
}

// TestHealthyForgets: the count of restarts outlives the daemon, and begins again after the plugin was well.
func TestHealthyForgets(t *testing.T) {
	l := newLab(t)
	p := l.plugin(t, "well:latest")
	crash := func(r *Runtime) int {
		t.Helper()
		pid := r.State(p.ID).Pid
		noErr(t, killPid(pid))
		until(t, "a restart", func() bool { s := r.State(p.ID); return s.Status == Running && s.Pid != pid })
		return r.State(p.ID).Restarts
	}
	first := l.open(t)
	noErr(t, first.Start(t.Context(), p))
	if one, two := crash(first), crash(first); one != 1 || two != 2 {
		t.Errorf("%d restarts, then %d", one, two)
	}
	noErr(t, first.Close())
	second := l.open(t)
	noErr(t, second.Adopt(t.Context(), []Plugin{p}))
	if n := crash(second); n != 3 {
		t.Errorf("%d restarts with another daemon", n)
	}
	noErr(t, second.Close())
	third := l.open(t)
	third.limits.healthy = time.Nanosecond
	noErr(t, third.Adopt(t.Context(), []Plugin{p}))
	if n := crash(third); n != 1 {
		t.Errorf("%d restarts after it was well", n)
	}
}

// TestHeld: callers wait while a plugin is started again, all of them, and are hung up on when it is stopped.
func TestHeld(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "held:latest", "WAIT=500ms")
	noErr(t, r.Start(t.Context(), p))
	noErr(t, killPid(r.State(p.ID).Pid))
	until(t, "its end", func() bool { return r.State(p.ID).Status == Restarting })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if pid, err := l.caller("held").call(t.Context(), "pid"); err != nil || pid != "1" {
				t.Errorf("held: %q, %v", pid, err)
			}
		})
		wg.Go(func() {
			c, err := r.Dial(t.Context(), p.ID)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	wg.Wait()
	noErr(t, killPid(r.State(p.ID).Pid))
	until(t, "its end", func() bool { return r.State(p.ID).Status == Restarting })
	ended := make(chan error)
	go func() {
		_, err := l.caller("held").call(t.Context(), "pid")
		ended <- err
	}()
	time.Sleep(50 * time.Millisecond)
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	if err := <-ended; err == nil {
		t.Error("a call of a plugin that was stopped was answered")
	}
	if _, err := r.Dial(t.Context(), p.ID); err == nil {
		t.Error("it can be called")
	}
	l.clean(t)
}

// TestSocketAgain: a plugin that makes its socket anew keeps its name.
func TestSocketAgain(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "again:latest")
	noErr(t, r.Start(t.Context(), p))
	before, err := os.Lstat(l.dir + "/plugins/again.sock")
	noErr(t, err)
	l.caller("again").get(t, "again")
	until(t, "the name to be the new socket's", func() bool {
		fi, err := os.Lstat(l.dir + "/plugins/again.sock")
		return err == nil && !os.SameFile(fi, before)
	})
	l.caller("again").get(t, "pid")
}

// TestLink: where the discovery directory is on another file system the name is a symbolic link.
func TestLink(t *testing.T) {
	l := newLab(t)
	noErr(t, os.MkdirAll(l.dir+"/plugins", 0o755))
	mountTmpfs(t, l.dir+"/plugins")
	r := l.open(t)
	p := l.plugin(t, "link:v1")
	noErr(t, r.Start(t.Context(), p))
	if target, err := os.Readlink(l.dir + "/plugins/link:v1.sock"); err != nil || target != r.Socket(p.ID, "test.sock") {
		t.Errorf("it is a link to %q, %v", target, err)
	}
	noErr(t, killPid(r.State(p.ID).Pid))
	until(t, "its end", func() bool { return r.State(p.ID).Last != nil })
	if got := fmt.Sprint(l.caller("link:v1").get(t, "pid")); got != "1" {
		t.Errorf("got %q", got)
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	if entries, _ := os.ReadDir(l.dir + "/plugins"); len(entries) > 0 {
		t.Errorf("left is %s", entries[0].Name())
	}
}
