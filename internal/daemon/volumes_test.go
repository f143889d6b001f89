package daemon

import (
	"context"
	"testing"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/testenv"
)

// People are told with what a volume was made, by Inspect and not for each of a list.
func TestOptionsAreShown(t *testing.T) {
	testenv.Require(t, testenv.Root)
	h := startHost(t, "[pool.a]\ndriver = \"mem\"\n")
	ctx := t.Context()
	h.must(h.plugin("a").Create(ctx, "data", map[string]string{"size": "64k"}))
	t.Cleanup(func() {
		_ = h.control.Volumes().Remove(context.WithoutCancel(ctx), control.VolumeRemoveRequest{Name: "data"})
	})
	v, err := h.control.Volumes().Inspect(ctx, control.VolumeRequest{Name: "data"})
	h.must(err)
	if v.Options["size"] != "64k" {
		t.Errorf("inspected as %+v", v)
	}
	list, err := h.control.Volumes().List(ctx, control.VolumeListRequest{})
	h.must(err)
	if len(list) != 1 || list[0].Options != nil {
		t.Errorf("listed as %+v", list)
	}
	h.must(h.plugin("a").Remove(ctx, "data"))
}
