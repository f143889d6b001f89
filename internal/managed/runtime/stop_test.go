package runtime

import (
	"testing"
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
