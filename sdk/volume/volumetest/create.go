package volumetest

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// noSuchOption is a key that no driver has.
const noSuchOption = "volumetest-no-such-option"

func createDirect() cases {
	return cases{
		"CreateMakesVolume": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.mustHave()
			b.create("one")
			b.create("two")
			b.mustHave("one", "two")
		},
		"CreateTwice": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			b.create("one")
			b.mustHave("one")
		},
		"CreateWithoutOptions": func(t *testing.T, c Config) {
			b := newBare(t, c)
			if err := b.Create(t.Context(), "one", map[string]string{}); err != nil {
				t.Fatalf("Create without options: %v", err)
			}
			b.mustHave("one")
		},
		"CreateAdoptsData": func(t *testing.T, c Config) {
			b := newBare(t, c)
			b.create("one")
			p := b.mount("one")
			write(t, p, "f", "kept")
			b.create("one") // while it is mounted
			mustRead(t, p, "f", "kept")
			b.unmount("one", p)
			b.create("one")
			if err := b.Create(t.Context(), "one", map[string]string{}); err != nil {
				t.Errorf("Create of what exists, without options: %v", err)
			}
			p = b.mount("one")
			mustRead(t, p, "f", "kept")
			b.unmount("one", p)
		},
		"CreateRefusesUnknownOption": func(t *testing.T, c Config) {
			b := newBare(t, c)
			opts := b.options()
			opts[noSuchOption] = "x"
			err := b.Create(t.Context(), "one", opts)
			mustBeClass(t, "Create with an unknown option", err, errdefs.ErrInvalid)
			if err != nil {
				for _, key := range append(slices.Collect(maps.Keys(c.Options)), noSuchOption) {
					if !strings.Contains(err.Error(), key) {
						t.Errorf("the error does not name %q: %v", key, err)
					}
				}
			}
			b.mustHave()
		},
		"CreateRefusesBadOptions": func(t *testing.T, c Config) {
			b := newBare(t, c)
			for key, value := range c.BadOptions {
				opts := b.options()
				opts[key] = value
				mustBeClass(t, "Create with "+key+"="+value, b.Create(t.Context(), "one", opts), errdefs.ErrInvalid)
				b.mustHave()
			}
		},
		"CreateLeavesOptionsAlone": func(t *testing.T, c Config) {
			b := newBare(t, c)
			opts := b.options()
			if err := b.Create(t.Context(), "one", opts); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(opts, b.options()) {
				t.Errorf("Create changed the caller's options to %q", opts)
			}
		},
		"NamesAreTakenAsTheyAre": func(t *testing.T, c Config) {
			b := newBare(t, c)
			names := []string{"a", "0", "A.b_c-d", "data", "Data", "data.json", "data.lock", "data.tmp", "data..", "x--", "tmp", "mnt", "con"}
			for _, name := range names {
				b.create(name)
			}
			b.mustHave(names...)
			p := b.mount("data")
			write(t, p, "f", "data")
			q := b.mount("Data")
			write(t, q, "f", "Data")
			mustRead(t, p, "f", "data")
			b.unmount("data", p)
			b.unmount("Data", q)
			b.remove("data")
			b.mustHave(slices.DeleteFunc(names, func(s string) bool { return s == "data" })...)
		},
		"NameOf255Bytes": func(t *testing.T, c Config) {
			b := newBare(t, c)
			name := strings.Repeat("n", volume.MaxName)
			b.create(name)
			b.create(name)
			b.mustHave(name)
			p := b.mount(name)
			write(t, p, "f", "x")
			b.unmount(name, p)
			b.remove(name)
			b.mustHave()
		},
	}
}

func createWire() cases {
	return cases{
		"CreateNeverOverwrites": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			p.create("one")
			m := p.mount("one", mountID(1))
			write(t, m, "f", "kept")
			p.create("one")
			mustRead(t, m, "f", "kept")
			p.unmount("one", mountID(1))
			p.restart()
			p.create("one")
			mustRead(t, p.mount("one", mountID(2)), "f", "kept")
			p.unmount("one", mountID(2))
		},
		"UnknownOptionIsNamed": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			err := p.volumes.Create(t.Context(), "one", map[string]string{noSuchOption: "x"})
			mustBeClass(t, "Create with an unknown option", err, errdefs.ErrInvalid)
			for _, key := range append(slices.Collect(maps.Keys(c.Options)), noSuchOption, `"one"`) {
				if err != nil && !strings.Contains(err.Error(), key) {
					t.Errorf("the error does not name %q: %v", key, err)
				}
			}
			p.mustBeGone("one")
		},
		"OddNamesAreRefused": func(t *testing.T, c Config) {
			p := startPlugin(t, c, nil)
			for _, name := range []string{
				"", ".", "..", "../x", "a/b", "/", "/etc", ".hidden", "-rf", "_x", "a b", "a\nb", "a\x00b", `a\b`, "ä", "名", "a\u202eb", "a\xffb",
				strings.Repeat("n", volume.MaxName+1), "a:b", "*",
			} {
				for verb, call := range map[string]func() error{
					"Create":  func() error { return p.volumes.Create(t.Context(), name, nil) },
					"Remove":  func() error { return p.volumes.Remove(t.Context(), name) },
					"Mount":   func() error { _, err := p.volumes.Mount(t.Context(), name, mountID(1)); return err },
					"Unmount": func() error { return p.volumes.Unmount(t.Context(), name, mountID(1)) },
				} {
					mustBeClass(t, verb+" of "+name, call(), errdefs.ErrInvalid)
				}
				p.mustBeGone(name) // a question, and no mistake of an engine
			}
			if n := p.faults.count("create") + p.faults.count("remove") + p.faults.count("mount") + p.faults.count("unmount"); n != 0 {
				t.Errorf("the driver was called %d times", n)
			}
			if got := p.list(); len(got) != 0 {
				t.Errorf("List: %q", got)
			}
		},
	}
}
