package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// inspect returns what the daemon knows of a volume.
func inspect(t *testing.T, h *lab.Host, name string) control.Volume {
	t.Helper()
	var v []control.Volume
	noErr(t, json.Unmarshal([]byte(h.MustCli("volume", "inspect", "--format", "json", name)), &v))
	return v[0]
}

// mounts returns how often a volume is mounted, over all mount IDs.
func mounts(t *testing.T, h *lab.Host, name string) int {
	t.Helper()
	n := 0
	for _, m := range inspect(t, h, name).Mounts {
		n += m.Count
	}
	return n
}

// eventually waits until ok, and fails the test when that takes longer than d.
func eventually(t *testing.T, d time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not so after %s", d)
}
