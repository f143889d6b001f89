package run

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smaps = `00400000-01000000 r-xp 00000000 08:01 1 /usr/bin/remora
Rss:                4000 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
01000000-01800000 r--p 00c00000 08:01 1 /usr/bin/remora
Private_Dirty:         4 kB
Anonymous:             0 kB
01800000-01900000 r--p 01400000 08:01 1 /usr/bin/remora
Private_Dirty:         0 kB
Anonymous:             4 kB
01900000-01a00000 rw-p 01500000 08:01 1 /usr/bin/remora
Private_Dirty:         0 kB
Anonymous:             0 kB
01b00000-01c00000 r-xp 00000000 08:01 2 /usr/lib/other
Private_Dirty:         0 kB
Anonymous:             0 kB
01c00000-01d00000 r--p 01500000 08:01 1 /usr/bin/remora
Private_Dirty:         0 kB
Anonymous:             0 kB
`

func TestUnchanged(t *testing.T) {
	want := []pages{{0x400000, 0x1000000}, {0x1000000, 0x1800000}, {0x1c00000, 0x1d00000}}
	if diff := cmp.Diff(want, unchanged([]byte(smaps), "/usr/bin/remora"), cmp.AllowUnexported(pages{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestForgetStart: the process goes on, with less of its file mapped.
func TestForgetStart(t *testing.T) {
	mapped := func() string {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "RssFile:")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(line)
	}
	var before, after int
	if _, err := fmt.Sscan(mapped(), &before); err != nil {
		t.Fatal(err)
	}
	if err := ForgetStart(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(mapped(), &after); err != nil {
		t.Fatal(err)
	}
	if after >= before {
		t.Errorf("%d KB of files are mapped, and before it were %d", after, before)
	}
}
