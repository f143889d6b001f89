package rbd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/test/cloud/ceph"
)

// readers returns how many programs read from a file at this moment.
func readers(t *testing.T, file string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if line, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(line), "dd\x00if="+file+"\x00") {
			n++
		}
	}
	return n
}

// outage has a cluster not answer for a while: one program waits for it, however often is asked, the
// image counts as attached, and can be read again when the cluster is back.
func outage(t *testing.T, c *cloud, way string) {
	t.Helper()
	p := c.mapping(t, way, "one")
	d := p.mustCreate(t, spec(uuidA, "data"))
	if err := p.Attach(t.Context(), d, block.Host{ID: p.host}); err != nil {
		t.Fatal(err)
	}
	dev := block.Device{Name: strings.TrimPrefix(p.device(t, d), "/dev/")}
	a := p.attachment(d.ID)
	file := p.wayOf(a).file(a)
	p.c.Timeout = 3 * time.Second
	thaw := c.Freeze()
	defer thaw()
	most := 0
	for end := time.Now().Add(4 * lookLimit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !p.Match(d, dev) {
			t.Fatal("it is not attached any more")
		}
		most = max(most, readers(t, file))
	}
	if most != 1 {
		t.Errorf("%d programs were reading", most)
	}
	thaw()
	for end := time.Now().Add(time.Minute); p.read(t.Context(), a) != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it cannot be read again")
		}
	}
	if !p.Match(d, dev) {
		t.Error("it is not attached any more")
	}
}

func TestOutageOfReads(t *testing.T) { outage(t, newCloud(t, ceph.Shared(t)), "fuse") }
