package runtime

import (
	"os"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/mount"
)

// TestSocketIsALink: the name is never a link of the plugin's making, which could lead to any socket of the host.
func TestSocketIsALink(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "link:latest")
	noErr(t, r.Start(t.Context(), p))
	name := l.dir + "/plugins/link.sock"
	before, err := os.Lstat(name)
	noErr(t, err)
	l.caller("link").get(t, "link?to=/run/docker.sock")
	until(t, "it to be noticed", func() bool {
		fi, err := os.Lstat(name)
		return strings.Contains(l.log.String(), "cannot be published") || err == nil && !os.SameFile(fi, before)
	})
	if fi, err := os.Lstat(name); err != nil || !os.SameFile(fi, before) {
		t.Errorf("the name is %v, %v", fi.Mode(), err)
	}
}

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
