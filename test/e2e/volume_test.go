package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// mounts returns how often a volume of the default pool is mounted, over all mount IDs.
func mounts(t *testing.T, h *lab.Host, name string) int {
	t.Helper()
	return mountsIn(t, h, "remora", name)
}

// mountsIn does the same for a volume of any pool.
func mountsIn(t *testing.T, h *lab.Host, pool, name string) int {
	t.Helper()
	var v []control.Volume
	noErr(t, json.Unmarshal([]byte(h.MustCli("volume", "inspect", "--pool", pool, "--format", "json", name)), &v))
	n := 0
	for _, m := range v[0].Mounts {
		n += m.Count
	}
	return n
}

// eventually waits until ok, and fails the test when that takes longer than d and [lab.Patience].
func eventually(t *testing.T, d time.Duration, ok func() bool) {
	t.Helper()
	d = max(d, lab.Patience)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not so after %s", d)
}
