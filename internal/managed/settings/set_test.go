package settings

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// stored is what comes of a plugin that was written to the disk and read again, which has no pointer
// in common any more.
func stored(t testing.TB, c plugin.Config, s plugin.Settings) (plugin.Config, plugin.Settings) {
	t.Helper()
	raw, err := json.Marshal(plugin.Plugin{Config: c, Settings: s})
	var p plugin.Plugin
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.Config, p.Settings
}

func TestSet(t *testing.T) {
	type got struct {
		Env, Args      []string
		Source, Path   string // of the settings
		CSource, CPath string // of the config
	}
	whole := got{[]string{"E=1", "FIXED=f", "ODD=o", "WRONG=w"}, []string{"x", "y"}, "/src", "/dev/null", "/src", "/dev/null"}
	for name, tt := range map[string]struct {
		args   []string
		change func(*got)
	}{
		"nothing":           {nil, func(*got) {}},
		"variable":          {[]string{"E=2"}, func(g *got) { g.Env[0] = "E=2" }},
		"with field":        {[]string{"E.value=2"}, func(g *got) { g.Env[0] = "E=2" }},
		"equals in value":   {[]string{"E=a=b"}, func(g *got) { g.Env[0] = "E=a=b" }},
		"dot in value":      {[]string{"E=a.b"}, func(g *got) { g.Env[0] = "E=a.b" }},
		"no value":          {[]string{"E"}, func(g *got) { g.Env[0] = "E=" }},
		"twice":             {[]string{"E=2", "E=3"}, func(g *got) { g.Env[0] = "E=3" }},
		"one that was not":  {[]string{"UNSET=u"}, func(g *got) { g.Env = append(g.Env, "UNSET=u") }},
		"one of two fields": {[]string{"ODD.value=2"}, func(g *got) { g.Env[2] = "ODD=2" }},
		"args":              {[]string{"a=x y  z"}, func(g *got) { g.Args = []string{"x", "y", "", "z"} }},
		"no args":           {[]string{"a="}, func(g *got) { g.Args = []string{""} }},
		"mount":             {[]string{"m=/other"}, func(g *got) { g.Source, g.CSource = "/other", "/other" }},
		"mount's field":     {[]string{"m.source=/other"}, func(g *got) { g.Source, g.CSource = "/other", "/other" }},
		"device":            {[]string{"dev.path=/dev/zero"}, func(g *got) { g.Path, g.CPath = "/dev/zero", "/dev/zero" }},
		"all":               {[]string{"E=2", "m=/o", "dev=/dev/zero", "a=q"}, func(g *got) { *g = got{g.Env, []string{"q"}, "/o", "/dev/zero", "/o", "/dev/zero"}; g.Env[0] = "E=2" }},
	} {
		t.Run(name, func(t *testing.T) {
			want := whole
			want.Env = append([]string{}, whole.Env...)
			tt.change(&want)
			c, s := stored(t, parsed(t, everything), Defaults(parsed(t, everything)))
			nc, ns, err := Set(c, s, tt.args)
			if err != nil {
				t.Fatal(err)
			}
			have := got{ns.Env, ns.Args, *ns.Mounts[0].Source, *ns.Devices[0].Path, *nc.Mounts[0].Source, *nc.Linux.Devices[0].Path}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(parsed(t, everything), c) + cmp.Diff(Defaults(c), s); diff != "" {
				t.Error("what was given is changed", diff)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	for arg, want := range map[string]string{
		"=x":           "invalid format, must be <name>[.<field>][=<value>]",
		"":             `setting "" not found in the plugin configuration`,
		"nope=1":       `setting "nope" not found in the plugin configuration`,
		".E=1":         `setting ".E" not found in the plugin configuration`,
		"a.b.value=1":  `setting "a.b" not found in the plugin configuration`,
		"FIXED=1":      `"FIXED" is not settable`,
		"FIXED.value=": `"FIXED.value" is not settable`,
		"E.source=1":   `"E.source" is not settable`,
		"WRONG=1":      `"WRONG.source" is not settable`,
		"ODD=1":        "multiple fields are settable, one must be specified",
		"ODD.other=1":  `"ODD.other" is not settable`,
		"fixed=/x":     `"fixed" is not settable`,
		"null=/x":      "plugin config has no mount source",
		"nodev=/dev/x": "plugin config has no device path",
		"m.path=/x":    `"m.path" is not settable`,
		"dev.value=/x": `"dev.value" is not settable`,
		"a.path=/x":    `"a.path" is not settable`,
	} {
		c, s := stored(t, parsed(t, everything), Defaults(parsed(t, everything)))
		// What comes before the wrong one is not set either.
		nc, ns, err := Set(c, s, []string{"E=2", "m=/o", "dev=/dev/zero", "a=q", arg})
		if err == nil || err.Error() != want || !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v, want %s", arg, err, want)
		}
		if diff := cmp.Diff(parsed(t, everything), nc) + cmp.Diff(Defaults(c), ns); diff != "" {
			t.Errorf("%q: half is set: %s", arg, diff)
		}
	}
	_, _, err := Set(parsed(t, everything), plugin.Settings{}, []string{"nope=1"})
	if hints := errdefs.Hints(err); len(hints) != 1 || hints[0] != "settable are: E, UNSET, ODD, m.source, dev.path, a" {
		t.Errorf("%q", hints)
	}
}

// The settings may be those of an engine's record, or of an older version.
func TestSetWithoutSettings(t *testing.T) {
	c, s, err := Set(parsed(t, everything), plugin.Settings{}, []string{"m=/o", "dev=/dev/zero", "E=2"})
	if err != nil {
		t.Fatal(err)
	}
	if *s.Mounts[0].Source != "/o" || *s.Devices[0].Path != "/dev/zero" || s.Env[0] != "E=2" || *c.Mounts[0].Source != "/o" {
		t.Errorf("%+v", s)
	}
}

func TestUpgrade(t *testing.T) {
	old := parsed(t, everything)
	c, s, err := Set(old, Defaults(old), []string{"E=mine", "UNSET=u", "m=/mine", "dev=/dev/zero"})
	if err != nil {
		t.Fatal(err)
	}
	c, s = stored(t, c, s)
	next := parsed(t, strings.NewReplacer(
		`"value": "1"`, `"value": "10"`, `"value": "o"`, `"value": "oo"`, `"value": "f"`, `"value": "ff"`,
		`"source": "/f"`, `"source": "/ff"`, `["x", "y"]`, `["z"]`, `{"name": "WRONG"`, `{"name": "NEW"`).Replace(everything))
	nc, ns := Upgrade(old, s, next)
	if diff := cmp.Diff([]string{"E=mine", "FIXED=ff", "ODD=oo", "NEW=w", "UNSET=u"}, ns.Env); diff != "" {
		t.Error(diff)
	}
	if *ns.Mounts[0].Source != "/mine" || *nc.Mounts[0].Source != "/mine" || *ns.Mounts[2].Source != "/ff" || *nc.Linux.Devices[0].Path != "/dev/zero" || *ns.Devices[0].Path != "/dev/zero" {
		t.Errorf("mounts %v, devices %v", ns.Mounts, ns.Devices)
	}
	if diff := cmp.Diff([]string{"z"}, ns.Args); diff != "" { // nobody set them
		t.Error(diff)
	}
	// What can be set no more is as the new version has it.
	nc, ns = Upgrade(old, s, parsed(t, strings.NewReplacer(`"settable": ["source"]`, `"settable": []`, `["value"]`, `[]`, `["path"]`, `null`).Replace(everything)))
	if *nc.Mounts[0].Source != "/src" || *ns.Devices[0].Path != "/dev/null" || ns.Env[0] != "E=1" || len(ns.Env) != 4 {
		t.Errorf("%+v", ns)
	}
	_ = c
}

func FuzzSet(f *testing.F) {
	for _, arg := range []string{"E=1", "m.source=/x", "dev=", "a=x y", "=", "..=", "ODD.other=1"} {
		f.Add(everything, arg, "UNSET")
	}
	f.Add(`{"env":[{"name":"","settable":["value"]}],"args":{"settable":["value","value"]}}`, ".value=1", "value")
	f.Fuzz(func(t *testing.T, raw, one, two string) {
		c, err := Parse([]byte(raw))
		if err != nil {
			return
		}
		s := Defaults(c)
		before, sBefore := stored(t, c, s)
		nc, ns, err := Set(c, s, []string{one, two})
		if diff := cmp.Diff(before, c) + cmp.Diff(sBefore, s); diff != "" {
			t.Fatal("what was given is changed", diff)
		}
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, nc) + cmp.Diff(s, ns); diff != "" {
				t.Fatal("half is set", diff)
			}
			return
		}
		// Whoever reads the config sees what whoever reads the settings does.
		for i, m := range nc.Mounts {
			if j := find(ns.Mounts, func(o plugin.Mount) bool { return o.Name == m.Name }); m.Source != nil && i == first(nc.Mounts, m.Name) && *j.Source != *m.Source {
				t.Fatalf("%q: the config has %q and the settings %q", m.Name, *m.Source, *j.Source)
			}
		}
		// Setting the same again changes nothing.
		nc2, ns2, err := Set(nc, ns, []string{one, two})
		if diff := cmp.Diff(nc, nc2) + cmp.Diff(ns, ns2); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	})
}

func first(mounts []plugin.Mount, name string) int {
	for i, m := range mounts {
		if m.Name == name {
			return i
		}
	}
	return -1
}
