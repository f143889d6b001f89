package all_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/drivers/all"
	"github.com/remora-plugins/remora/internal/catalog"
)

func TestVolumesAreInOrderAndDescribed(t *testing.T) {
	var names []string
	for _, v := range all.Volumes() {
		names = append(names, v.Name())
		if v.Doc() == "" || strings.HasSuffix(v.Doc(), ".") || strings.Contains(v.Doc(), "\n") {
			t.Errorf("%s: doc is %q, want one line without a full stop", v.Name(), v.Doc())
		}
		for _, k := range slices.Concat(v.Keys(), v.Options()) {
			if k.Name == "driver" {
				t.Errorf("%s: key %q names the driver already", v.Name(), k.Name)
			}
		}
	}
	if !slices.IsSortedFunc(all.Volumes(), func(a, b catalog.Volume) int { return strings.Compare(a.Name(), b.Name()) }) ||
		len(slices.Compact(names)) != len(all.Volumes()) {
		t.Errorf("names are %v, want each once and in order", names)
	}
}
