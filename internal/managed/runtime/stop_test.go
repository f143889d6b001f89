package runtime

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestNotWatched: a plugin whose output cannot be watched is not started, and leaves nothing open.
func TestNotWatched(t *testing.T) {
	l := newLab(t)
	r, err := Open(l.options())
	noErr(t, err)
	defer func() { noErr(t, r.Close()) }()
	p := l.plugin(t, "unwatched:latest")
	r.watcher.close()
	wants(t, r.Start(t.Context(), p), `plugin "unwatched:latest": `, "closed")
	if in := r.find(p.ID); in != nil {
		t.Errorf("it is remembered, its output open: %t", in.out != nil)
	}
}

// TestStopAgain: a stop that failed half way can be made again, and the plugin is stopped then.
func TestStopAgain(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "again:latest")
	noErr(t, r.Start(t.Context(), p))
	noErr(t, os.Rename(p.Rootfs, p.Rootfs+".away"))
	noErr(t, os.Symlink(filepath.Base(p.Rootfs), p.Rootfs)) // which leads nowhere
	wants(t, r.Stop(t.Context(), p.ID, 0), "too many links")
	noErr(t, os.Remove(p.Rootfs))
	noErr(t, os.Rename(p.Rootfs+".away", p.Rootfs))
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	if s := r.State(p.ID); s.Status != Stopped {
		t.Errorf("state is %+v", s)
	}
	if all := r.States(); len(all) > 0 {
		t.Errorf("states are %+v", all)
	}
	l.clean(t)
}

// TestStopFrozen: a plugin that somebody has frozen can be stopped.
func TestStopFrozen(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	r.limits.stop = 500 * time.Millisecond
	p := l.plugin(t, "frozen:latest")
	noErr(t, r.Start(t.Context(), p))
	dirs, err := cgroupDirs(cgroupOf(p.ID))
	noErr(t, err)
	frozen := false
	for _, dir := range dirs {
		for file, text := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				noErr(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0))
				frozen = true
			}
		}
	}
	if !frozen {
		t.Fatal("it cannot be frozen")
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	l.clean(t)
}
