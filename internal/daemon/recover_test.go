package daemon

import (
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/control"
)

// TestOwnMountsAreTakenBack: what a daemon had mounted for itself when it was killed keeps no volume
// in use, and what others have mounted stays.
func TestOwnMountsAreTakenBack(t *testing.T) {
	h := startHost(t, "[pool.a]\n")
	ctx := t.Context()
	for _, id := range []string{"remora-daemon-DEAD-1", "remora-cli"} {
		h.must(h.plugin("a").Create(ctx, "data", nil))
		_, err := h.plugin("a").Mount(ctx, "data", id)
		h.must(err)
	}
	h.must(h.stop())
	h.run()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Pool: "a", Name: "data"})
		h.must(err)
		if len(v.Mounts) == 1 && v.Mounts[0].ID == "remora-cli" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("mounted by %+v", v.Mounts)
		}
	}
}
