package filesystem_test

import (
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/filesystem"
)

// TestUnfinishedXFS: an xfs whose mkfs was cut off says so.
func TestUnfinishedXFS(t *testing.T) {
	sb := make([]byte, 512)
	copy(sb, "XFSB")
	sb[126] = 1
	if never, err := filesystem.Kinds["xfs"].NeverMounted(strings.NewReader(string(sb))); err != nil || !never {
		t.Errorf("never mounted: %v, %v", never, err)
	}
	if _, err := filesystem.Kinds["xfs"].NeverMounted(strings.NewReader("XFSB")); err == nil {
		t.Error("a superblock that cannot be read says something")
	}
}

func TestTakes(t *testing.T) {
	for option, want := range map[string]bool{
		"noatime": true, "commit=30": true, "errors=panic": false, "ro": false, "data=ordered": true, "commit=30,errors=panic": false, "": false,
	} {
		if filesystem.Kinds["ext4"].Takes(option) != want {
			t.Errorf("%q: want %v", option, want)
		}
	}
}
