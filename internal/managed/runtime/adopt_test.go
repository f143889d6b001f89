package runtime

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/mount"
)

// TestAdopt: the next daemon finds plugins that run as they were, those that ended are started, and what nobody wants
// any more is cleared away.
func TestAdopt(t *testing.T) {
	l := newLab(t)
	first := l.open(t)
	lives, dies, unwanted, fresh := l.plugin(t, "lives:latest"), l.plugin(t, "dies:latest"), l.plugin(t, "unwanted:latest"), l.plugin(t, "fresh:latest")
	for _, p := range []Plugin{lives, dies, unwanted} {
		noErr(t, first.Start(t.Context(), p))
	}
	l.caller("lives").get(t, "mount?dir=/volumes/v")
	if left := fmt.Sprint(l.left()); !strings.Contains(left, "/proc/") || !strings.Contains(left, "mount ") || !strings.Contains(left, "/remora-") {
		t.Errorf("what looks for left-overs sees %s", left)
	}
	l.caller("unwanted").get(t, "mount?dir=/volumes/v")
	before, dead := first.State(lives.ID), first.State(dies.ID)
	noErr(t, first.Close())
	// While no daemon is there, it is called all the same, and writes without being read.
	l.caller("lives").get(t, "print?n=3000&text=alone")
	noErr(t, killPid(dead.Pid))

	second := l.open(t)
	noErr(t, second.Adopt(t.Context(), []Plugin{lives, dies, fresh}))
	if after := second.State(lives.ID); after.Pid != before.Pid || after.Status != Running || !after.Since.Equal(before.Since) {
		t.Errorf("it was %+v, and is %+v", before, after)
	}
	if at, err := mount.At(lives.Propagated + "/v"); err != nil || !at {
		t.Errorf("its mount is gone: %v", err)
	}
	for line := range second.Logs(t.Context(), lives.ID, 1, false) {
		if line.Text != "alone 2999" {
			t.Errorf("its last line is %q", line.Text)
		}
	}
	until(t, "another process", func() bool {
		s := second.State(dies.ID)
		return s.Status == Running && s.Pid != dead.Pid && s.Last != nil
	})
	for _, name := range []string{"lives", "dies", "fresh"} {
		l.caller(name).get(t, "pid")
	}
	if at, err := mount.At(unwanted.Propagated + "/v"); err == nil && at {
		t.Error("a mount of a plugin that nobody wants is still there")
	}
	if _, err := os.Lstat(l.dir + "/plugins/unwanted.sock"); err == nil {
		t.Error("a plugin that nobody wants has its name")
	}
	// It is kept running from then on.
	noErr(t, killPid(before.Pid))
	until(t, "a restart", func() bool { return second.State(lives.ID).Restarts == 1 })
	l.caller("lives").get(t, "pid")
	noErr(t, second.Adopt(t.Context(), []Plugin{lives, dies, fresh})) // changes nothing
}

// TestAdoptFails: what cannot be started at boot is tried again.
func TestAdoptFails(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "later:latest")
	late := l.dir + "/late"
	p.Config.Mounts = mounts("late", &late, "/late")
	noErr(t, r.Adopt(t.Context(), []Plugin{p}))
	s := r.State(p.ID)
	if s.Status != Restarting || !strings.Contains(s.Error, "no such file") {
		t.Errorf("state is %+v", s)
	}
	noErr(t, os.Mkdir(late, 0o755))
	l.caller("later").get(t, "pid") // waits
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	l.clean(t)
}

// TestAdoptBeside: what is started while the others are taken over goes on running.
func TestAdoptBeside(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "beside:latest", "WAIT=300ms")
	started := make(chan error, 1)
	go func() { started <- r.Start(t.Context(), p) }()
	until(t, "its begin", func() bool { return r.State(p.ID).Status == Starting })
	noErr(t, r.Adopt(t.Context(), nil))
	noErr(t, <-started)
	if s := r.State(p.ID); s.Status != Running {
		t.Errorf("state is %+v", s)
	}
	l.caller("beside").get(t, "pid")
}

// TestRecordOfNothing: a directory whose record makes no sense is cleared away.
func TestRecordOfNothing(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	for _, id := range []string{strings.Repeat("a", 64), strings.Repeat("b", 64)} {
		noErr(t, os.MkdirAll(r.path(id, "s"), 0o700))
	}
	noErr(t, os.WriteFile(r.path(strings.Repeat("a", 64), recordName), []byte("{torn"), 0o600))
	noErr(t, r.Adopt(t.Context(), nil))
	l.clean(t)
}

func TestContextEnds(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	r.limits.stop = 200 * time.Millisecond
	p := l.plugin(t, "slow:latest", "WAIT=20s")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	wants(t, r.Start(ctx, p), `plugin "slow:latest": `, "context deadline exceeded")
	l.clean(t)
}
