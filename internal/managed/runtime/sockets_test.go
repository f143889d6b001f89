package runtime

import (
	"os"
	"testing"

	"github.com/remora-plugins/remora/internal/mount"
)

// TestMountedOverSockets: what a plugin mounted over the directory of its sockets is not deleted.
func TestMountedOverSockets(t *testing.T) {
	l := newLab(t)
	dir, host := l.dir+"/s", l.dir+"/host"
	for _, d := range []string{dir, host} {
		noErr(t, os.Mkdir(d, 0o755))
	}
	noErr(t, os.WriteFile(host+"/precious", nil, 0o600))
	noErr(t, os.WriteFile(dir+"/left.sock", nil, 0o600))
	noErr(t, mount.Mount(host, dir, "none", 0x1000 /* MS_BIND */, ""))
	noErr(t, empty(dir))
	if _, err := os.Stat(host + "/precious"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
	l.clean(t)
}
