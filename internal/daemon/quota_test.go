package daemon

import (
	"os"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
)

// What the volumes of a btrfs take is counted file by file as long as none of them has a limit,
// and by the file system from then on.
func TestUsedWithAndWithoutQuota(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	h := startHost(t, "[pool.snaps]\ndriver = \"btrfs\"\nsize = \"256m\"\n")
	ctx, silent := t.Context(), func(control.Progress) {}
	for _, name := range []string{"one", "two"} {
		h.must(h.plugin("snaps").Create(ctx, name, nil))
		dir, err := h.plugin("snaps").Mount(ctx, name, "id")
		h.must(err)
		h.must(os.WriteFile(dir+"/f", make([]byte, 3<<20), 0o600))
		h.must(h.plugin("snaps").Unmount(ctx, name, "id"))
	}
	_, err := h.control.Storage().CreateSnapshot(ctx, control.SnapshotCreateRequest{Pool: "snaps", Volume: "one", Name: "s"})
	h.must(err)
	list := func() []control.Volume {
		all, err := h.control.Volumes().List(ctx, control.VolumeListRequest{Pool: "snaps", Usage: true})
		h.must(err)
		return all
	}
	var all []control.Volume
	h.await("counted", func() bool {
		all = list()
		for _, v := range all {
			if v.Used == nil || v.Unknown != nil {
				return false
			}
		}
		return len(all) == 2
	})
	for _, v := range all {
		if *v.Used < 3<<20 || *v.Used > 4<<20 || v.UsedAt.IsZero() || v.Limit != 0 || *v.Snapshots != map[string]int{"one": 1, "two": 0}[v.Name] {
			t.Errorf("without quota: %+v", v)
		}
	}
	u, err := h.control.Storage().Usage(ctx, control.VolumeRequest{Pool: "snaps", Name: "one"}, silent)
	if h.must(err); u.Used < 3<<20 || u.Used > 4<<20 {
		t.Errorf("counted at once: %+v", u)
	}
	u, err = h.control.Storage().Resize(ctx, control.VolumeResizeRequest{Pool: "snaps", Name: "two", Size: 8 << 20})
	if h.must(err); u.Limit != 8<<20 || u.Used < 3<<20 || u.Used > 4<<20 {
		t.Errorf("resized to %+v", u)
	}
	for _, v := range list() {
		if *v.Used < 3<<20 || *v.Used > 4<<20 || !v.UsedAt.IsZero() || v.Limit != map[string]int64{"one": 0, "two": 8 << 20}[v.Name] || v.Unknown != nil {
			t.Errorf("with quota: %+v", v)
		}
	}
}
