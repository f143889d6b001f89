package volumetest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/leaktest"
)

func mountDirect() cases {
	return cases{
		"MountKeepsData": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			for i, text := range []string{"first", "second"} {
				p := b.mount("one")
				if i > 0 {
					mustRead(t, p, "f", "first")
				}
				write(t, p, "f", text)
				b.unmount("one", p)
			}
			p := b.mount("one")
			mustRead(t, p, "f", "second")
			b.unmount("one", p)
		},
		"MountTwice": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			p := b.mount("one")
			write(t, p, "f", "x")
			before := len(leaktest.MountsBelow(t, b.root))
			if q := b.mount("one"); q != p {
				t.Errorf("mounted at %q, and again at %q", p, q)
			}
			if after := len(leaktest.MountsBelow(t, b.root)); after != before {
				t.Errorf("%d mounts, and after a second Mount %d: they are stacked", before, after)
			}
			mustRead(t, p, "f", "x")
			b.unmount("one", p)
			if left := leaktest.MountsBelow(t, b.root); len(left) > 0 {
				t.Errorf("one Unmount left %q", left)
			}
		},
		"UnmountTwice": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			p := b.mount("one")
			b.unmount("one", p)
			b.unmount("one", p)
			// The mountpoint itself may have gone in between: that is a restart's half way.
			if p == b.target("one") {
				if err := os.Remove(p); err != nil {
					t.Fatal(err)
				}
				b.unmount("one", p)
			}
		},
		"UnmountKeepsData": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			p := b.mount("one")
			write(t, p, "f", "x")
			b.unmount("one", p)
			b.unmount("one", p)
			p = b.mount("one")
			mustRead(t, p, "f", "x")
			b.unmount("one", p)
			b.mustHave("one")
		},
		"MountAbsent": func(t *testing.T, c Config) {
			b := newBare(t, c)
			for range 2 {
				_, err := b.Mount(t.Context(), "absent", b.target("absent"))
				mustBeClass(t, "Mount of a volume that does not exist", err, errdefs.ErrNotFound)
				if err := os.Remove(filepath.Join(b.root, "absent")); err != nil {
					t.Errorf("target is not empty as it was: %v", err)
				}
			}
			b.mustHave()
		},
		"MountLeavesTargetAlone": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			p := b.mount("one")
			write(t, p, "f", "x")
			b.unmount("one", p)
			if entries, err := os.ReadDir(b.target("one")); err != nil || len(entries) > 0 {
				t.Errorf("target has %v in it after Unmount: %v", entries, err)
			}
		},
		"OwnerAndModeAreKept": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			p := b.mount("one")
			if err := os.Mkdir(filepath.Join(p, "d"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"d", "d/f"} {
				if name == "d/f" {
					write(t, p, name, "x")
				}
				if err := os.Chmod(filepath.Join(p, name), 0o751); err != nil {
					t.Fatal(err)
				}
				if os.Geteuid() == 0 {
					if err := os.Lchown(filepath.Join(p, name), 1234, 4321); err != nil {
						t.Fatal(err)
					}
				}
			}
			b.unmount("one", p)
			p = b.mount("one")
			for _, name := range []string{"d", "d/f"} {
				fi, err := os.Stat(filepath.Join(p, name))
				if err != nil {
					t.Fatal(err)
				}
				st, ok := fi.Sys().(*syscall.Stat_t)
				if fi.Mode().Perm() != 0o751 || ok && os.Geteuid() == 0 && (st.Uid != 1234 || st.Gid != 4321) {
					t.Errorf("%s came back as %v %d:%d, want mode 0751 and 1234:4321", name, fi.Mode(), st.Uid, st.Gid)
				}
			}
			b.unmount("one", p)
		},
		"VolumesAreApart": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			b.create("two")
			p, q := b.mount("one"), b.mount("two")
			write(t, p, "f", "one")
			if _, err := os.Stat(filepath.Join(q, "f")); err == nil {
				t.Error("what was written to one volume is in another")
			}
			b.unmount("one", p)
			write(t, q, "f", "two")
			b.unmount("two", q)
			p = b.mount("one")
			mustRead(t, p, "f", "one")
			b.unmount("one", p)
		},
	}
}

func mountWire() cases {
	return cases{
		"UnmountCountsIDs": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "x")
			p.mount("one", mountID(2))
			p.unmount("one", mountID(1))
			mustRead(t, m, "f", "x")
			p.mustBeMounted("one", 1)
			p.unmount("one", mountID(1)) // again: it is not the other's
			mustRead(t, m, "f", "x")
			p.mustBeMounted("one", 1)
			p.unmount("one", mountID(2))
			p.mustBeMounted("one", 0)
			if n := p.faults.count("unmount"); n != 1 {
				t.Errorf("the driver unmounted %d times, want once", n)
			}
		},
		"UnmountOfNothing": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.unmount("absent", mountID(1))
			p.create("one")
			p.unmount("one", mountID(1))
			p.unmount("one", "")
			if n := p.faults.count("unmount"); n != 0 {
				t.Errorf("the driver unmounted %d times what was not mounted", n)
			}
		},
		"MountOfNothing": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for range 2 {
				_, err := p.volumes.Mount(t.Context(), "absent", mountID(1))
				mustBeClass(t, "Mount of a volume that does not exist", err, errdefs.ErrNotFound)
				if err != nil && !strings.Contains(err.Error(), `"absent"`) {
					t.Errorf("the error does not name the volume: %v", err)
				}
			}
			if left, err := os.ReadDir(p.options.MountRoot); err != nil || len(left) > 0 {
				t.Errorf("a failed Mount left %v: %v", left, err)
			}
		},
	}
}
