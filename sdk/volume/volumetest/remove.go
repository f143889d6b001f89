package volumetest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func removeDirect() cases {
	return cases{
		"RemoveDestroysData": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			b.create("two")
			p := b.mount("one")
			write(t, p, "f", "x")
			b.unmount("one", p)
			b.remove("one")
			b.mustHave("two")
			b.create("one")
			p = b.mount("one")
			if _, err := os.Lstat(filepath.Join(p, "f")); err == nil {
				t.Error("a new volume has the data of a removed one")
			}
			b.unmount("one", p)
		},
		"RemoveTwice": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			b.remove("one")
			mustBeClass(t, "Remove of what was removed", b.Remove(t.Context(), "one"), errdefs.ErrNotFound)
			b.mustHave()
		},
		"RemoveAbsent": func(t *testing.T, c Config) {
			b := newBare(t, c)
			mustBeClass(t, "Remove of what never was", b.Remove(t.Context(), "absent"), errdefs.ErrNotFound)
		},
		"RemoveLeavesWhatLinksLeadTo": func(t *testing.T, c Config) {
			b := newBare(t, c)
			outside := filepath.Join(b.root, "outside")
			if err := os.Mkdir(outside, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, outside, "f", "x")
			b.create("one")
			p := b.mount("one")
			if err := os.Symlink(outside, filepath.Join(p, "link")); err != nil {
				t.Fatal(err)
			}
			b.unmount("one", p)
			b.remove("one")
			mustRead(t, outside, "f", "x")
		},
		"RemoveAndCreateByTurns": func(t *testing.T, c Config) {
			b := newBare(t, c)
			for range 5 {
				b.create("one")
				b.mustHave("one")
				p := b.mount("one")
				write(t, p, "f", "x")
				b.unmount("one", p)
				b.remove("one")
				b.mustHave()
			}
		},
	}
}

func removeWire() cases {
	return cases{
		"RemoveTwiceByEngine": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			p.remove("one")
			p.remove("one") // the answer to the first was lost
			p.mustBeGone("one")
			if got := p.list(); len(got) != 0 {
				t.Errorf("List: %q", got)
			}
		},
		"RemoveWhileMounted": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			for range 2 {
				mustBeClass(t, "Remove of a mounted volume", p.volumes.Remove(t.Context(), "one"), errdefs.ErrInUse)
			}
			mustRead(t, m, "f", "x")
			p.mustGet("one")
			p.unmount("one", mountID(1))
			p.remove("one")
			p.mustBeGone("one")
			if n := p.faults.count("remove"); n != 1 {
				t.Errorf("the driver removed %d times, want once", n)
			}
		},
	}
}
