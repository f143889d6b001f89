package daemonjson

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestFile(t *testing.T) {
	for line, want := range map[string]string{
		"":                                  "",
		"dockerd -H fd://":                  "",
		"dockerd --config-file /srv/d.json": "/srv/d.json",
		"dockerd --config-file=/a --debug":  "/a",
		"dockerd --config-file=/a --config-file=/b": "/b",
		"dockerd --config-file=daemon.json":         "",
		"dockerd --config-file":                     "",
	} {
		if got := File(strings.Fields(line)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// A link to a file that is not there, on a file system that is not mounted, say, stays what it is.
func TestLinkToNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.Symlink("elsewhere/daemon.json", path); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(path, wanted, nil); !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "is a link") {
		t.Errorf("error is %v", err)
	}
}
