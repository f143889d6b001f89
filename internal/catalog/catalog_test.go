package catalog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// sample has a field of every type.
type sample struct {
	Path   string         `opt:"path" help:"where it lies"`
	Sync   bool           `opt:"sync" default:"true" help:"flush to the disk"`
	Size   catalog.Bytes  `opt:"size" default:"10g" help:"how much"`
	Wait   time.Duration  `opt:"wait" default:"90s" help:"how long"`
	Mode   fs.FileMode    `opt:"mode" default:"0755" help:"who may"`
	UID    *uint32        `opt:"uid" help:"whose"`
	Level  int            `opt:"level" help:"how hard"`
	Kind   string         `opt:"kind" enum:"raw,cooked" default:"raw" help:"which"`
	Flags  []string       `opt:"flags" help:"what else"`
	Secret catalog.Secret `opt:"password" help:"let me in"`
}

func TestDecodeOptionsTypes(t *testing.T) {
	got, err := catalog.DecodeOptions[sample](map[string]string{
		"path": "/srv/x", "sync": "false", "size": "1.5k", "wait": "5m", "mode": "2770", "uid": "4294967295",
		"level": "-3", "kind": "cooked", "flags": "a, b,,c", "password": "open sesame",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Secret.Reveal() != "open sesame" {
		t.Errorf("secret is %q", got.Secret.Reveal())
	}
	got.Secret = catalog.Secret{}
	want := sample{
		Path: "/srv/x", Size: 1536, Wait: 5 * time.Minute, Mode: 0o770 | fs.ModeSetgid,
		UID: new(uint32(4294967295)), Level: -3, Kind: "cooked", Flags: []string{"a", "b", "c"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(catalog.Secret{}), cmp.Comparer(func(a, b catalog.Secret) bool {
		return a.Reveal() == b.Reveal()
	})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Words that are truth values may be written as those.
func TestDecodeTruthAmongWords(t *testing.T) {
	type table struct {
		Quota string `opt:"quota" enum:"auto,true,false" default:"auto" help:"when"`
	}
	for given, want := range map[any]string{true: "true", false: "false", "1": "true", "0": "false", "true": "true", "auto": "auto"} {
		if got, err := catalog.DecodeTable[table](map[string]any{"quota": given}); err != nil || got.Quota != want {
			t.Errorf("%v is %q, %v", given, got.Quota, err)
		}
	}
	if got, err := catalog.DecodeTable[table](nil); err != nil || got.Quota != "auto" {
		t.Errorf("the default is %q, %v", got.Quota, err)
	}
	for _, wrong := range []any{"yes", "", int64(1000)} {
		if _, err := catalog.DecodeTable[table](map[string]any{"quota": wrong}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	if _, err := catalog.DecodeTable[sample](map[string]any{"kind": true}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a truth value where none is meant: %v", err)
	}
}

func TestDecodeDefaults(t *testing.T) {
	got, err := catalog.DecodeOptions[sample](nil)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Sync || got.Size != 10<<30 || got.Wait != 90*time.Second || got.Mode != 0o755 || got.Kind != "raw" {
		t.Errorf("defaults are %+v", got)
	}
	if got.UID != nil || got.Flags != nil || got.Path != "" {
		t.Errorf("keys without default are set: %+v", got)
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts map[string]string
		want string
	}{
		{
			"unknown and near",
			map[string]string{"moed": "1"},
			`unknown option "moed", did you mean "mode"? (there are: flags, kind, level, mode, password, path, size, sync, uid, wait)`,
		},
		{"unknown by case", map[string]string{"Size": "1"}, `did you mean "size"?`},
		{"unknown and far", map[string]string{"encryption": "on"}, `unknown option "encryption" (there are: flags,`},
		{"newline in key", map[string]string{"a\nb": "1"}, `unknown option "a\nb"`},
		{"bool", map[string]string{"sync": "yes"}, `option "sync": "yes" is not true or false`},
		{"size", map[string]string{"size": "-1"}, `option "size": "-1" is not a size such as 512m or 10g`},
		{"size that overflows", map[string]string{"size": "9999999p"}, `is not a size`},
		{"duration", map[string]string{"wait": "90"}, `option "wait": "90" is not a duration such as 90s or 5m`},
		{"mode", map[string]string{"mode": "rwx"}, `option "mode": "rwx" is not an octal mode such as "0755"`},
		{"mode too large", map[string]string{"mode": "10000"}, `is not an octal mode`},
		{"uid", map[string]string{"uid": "root"}, `option "uid": "root" is not a whole number from 0 to 4294967295`},
		{"enum", map[string]string{"kind": "fried"}, `option "kind": "fried" is not one of raw, cooked`},
		{"zero byte", map[string]string{"path": "/a\x00b"}, `option "path": "/a\x00b" is not text`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := catalog.DecodeOptions[sample](tt.opts)
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Fatalf("error is %v, want ErrInvalid", err)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is\n%s\nwant one line with\n%s", err, tt.want)
			}
		})
	}
}

func TestDecodeNoOptions(t *testing.T) {
	_, err := catalog.DecodeOptions[struct{}](map[string]string{"size": "1"})
	if err == nil || err.Error() != `unknown option "size": there are none` {
		t.Errorf("error is %v", err)
	}
}

func TestDecodeTable(t *testing.T) {
	got, err := catalog.DecodeTable[sample](map[string]any{
		"size": int64(4096), "sync": false, "flags": []any{"a,b", "c"}, "level": int64(2), "mode": "0o700", "uid": "7",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != 4096 || got.Sync || got.Level != 2 || got.Mode != 0o700 || *got.UID != 7 {
		t.Errorf("decoded %+v", got)
	}
	if diff := cmp.Diff([]string{"a,b", "c"}, got.Flags); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for key, bad := range map[string]any{
		"path": int64(5), "mode": int64(755), "flags": []any{int64(1)}, "wait": 1.5, "sync": int64(1), "kind": map[string]any{"a": 1},
		"level": true, "size": []any{"1"}, "password": int64(12345),
	} {
		_, err := catalog.DecodeTable[sample](map[string]any{key: bad})
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), `key "`+key+`": `) {
			t.Errorf("%s = %v: error is %v", key, bad, err)
		}
		if strings.Contains(fmt.Sprint(err), "12345") {
			t.Errorf("error shows a secret: %v", err)
		}
	}
}

func TestRequired(t *testing.T) {
	type c struct {
		Server string `opt:"server,required" help:"host to ask"`
	}
	_, err := catalog.DecodeTable[c](nil)
	if !errors.Is(err, errdefs.ErrInvalid) || err.Error() != `key "server" is missing: host to ask` {
		t.Errorf("error is %v", err)
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	type inner struct{ hidden catalog.Secret }
	s := catalog.NewSecret("hunter2")
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", s, "b", struct{ S catalog.Secret }{s})
	js, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(s), fmt.Sprintf("%#v", s), fmt.Sprintf("%q", s), fmt.Sprintf("%+v", inner{s}), fmt.Sprintf("%#v", inner{s}),
		fmt.Sprintf("%v", &s), log.String(), string(js),
	} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("secret shows in %s", text)
		}
	}
	if (catalog.Secret{}).String() != "" || string(js) != `{"s":"REDACTED"}` {
		t.Errorf("empty is %q, json is %s", catalog.Secret{}, js)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]catalog.Bytes{
		"0": 0, "1024": 1 << 10, "1k": 1 << 10, "10G": 10 << 30, "10GiB": 10 << 30, "10gb": 10 << 30, "512 m": 512 << 20,
		"0.5t": 1 << 39, "7b": 7, "8191p": 8191 << 50,
	} {
		got, err := catalog.ParseBytes(text)
		if err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
		if again, err := catalog.ParseBytes(got.String()); err != nil || again != got {
			t.Errorf("%d prints as %q, which is %d, %v", got, got, again, err)
		}
	}
	for _, text := range []string{"", "k", "-1", "+1", "1.5", "1e3", "10x", "10kk", "1bb", "8192p", "nan", "inf", "0x10", "1.2.3k", "9223372036854775808"} {
		if got, err := catalog.ParseBytes(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}

func TestDescribePanicsOnWrongTags(t *testing.T) {
	for name, describe := range map[string]func(){
		"no name": func() {
			catalog.Describe[struct {
				A string `help:"x"`
			}]()
		},
		"no help": func() {
			catalog.Describe[struct {
				A string `opt:"a"`
			}]()
		},
		"wrong default": func() {
			catalog.Describe[struct {
				A int `opt:"a" default:"x" help:"x"`
			}]()
		},
		"type": func() {
			catalog.Describe[struct {
				A chan int `opt:"a" help:"x"`
			}]()
		},
		"twice": func() {
			catalog.Describe[struct {
				A, B string `opt:"a" help:"x"`
			}]()
		},
		"not a struct": func() { catalog.Describe[int]() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			describe()
		})
	}
}

func TestMarkdown(t *testing.T) {
	got := catalog.Markdown(catalog.Describe[struct {
		A string `opt:"a,required" help:"first"`
		B string `opt:"b" enum:"x,y" default:"x" help:"this|that"`
	}]())
	want := "| Key | Type | Default | What it does |\n|---|---|---|---|\n" +
		"| `a` | text | required | first |\n| `b` | x\\|y | `x` | this\\|that |\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

type inCommonKeys struct {
	Size catalog.Bytes `opt:"size" default:"1g" help:"how much"`
}

// TestEmbedded: keys that drivers have in common are keys like others.
func TestEmbedded(t *testing.T) {
	type own struct {
		Region string `opt:"region,required" help:"where"`
		inCommonKeys
		Last string `opt:"last" help:"at the end"`
	}
	got, err := catalog.DecodeTable[own](map[string]any{"region": "r", "size": "2g"})
	if err != nil || got.Region != "r" || got.Size != 2<<30 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := catalog.DecodeTable[own](map[string]any{"region": "r"}); err != nil || got.Size != 1<<30 {
		t.Errorf("default: %+v, %v", got, err)
	}
	if _, err := catalog.DecodeTable[own](map[string]any{"region": "r", "sise": "1"}); err == nil || err.Error() != `unknown key "sise", did you mean "size"? (there are: last, region, size)` {
		t.Errorf("wrong key: %v", err)
	}
	var names []string
	for _, k := range catalog.Describe[own]() {
		names = append(names, k.Name)
	}
	if fmt.Sprint(names) != "[region size last]" {
		t.Errorf("keys are %v", names)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"mode", "mountpoint", "uid"}
	for word, want := range map[string]string{"moutnpoint": "mountpoint", "mdoe": "mode", "UID": "uid", "zzz": "", "": ""} {
		if got := catalog.Nearest(word, names); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

func TestVolume(t *testing.T) {
	v := catalog.NewVolume("toy", "a toy", func(_ context.Context, c sample, env catalog.Env) (volume.Driver, error) {
		env.Log().Info("opened")
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "%s is closed", c.Path)
	}).WithOptions(catalog.Describe[struct {
		A string `opt:"a" help:"x"`
	}]())
	if v.Name() != "toy" || v.Doc() != "a toy" || len(v.Keys()) != 10 || len(v.Options()) != 1 {
		t.Errorf("described as %q, %q, %d keys, %d options", v.Name(), v.Doc(), len(v.Keys()), len(v.Options()))
	}
	_, err := v.Open(t.Context(), map[string]any{"path": "/srv"}, catalog.Env{PoolName: "p"})
	if !errors.Is(err, errdefs.ErrUnavailable) || err.Error() != `pool "p": /srv is closed` {
		t.Errorf("open: %v", err)
	}
	if err := v.Check(map[string]any{"pth": "/srv"}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("check: %v", err)
	}
	if err := v.Check(map[string]any{"path": "/srv"}); err != nil {
		t.Errorf("check: %v", err)
	}
}

func FuzzDecodeOptions(f *testing.F) {
	for _, s := range []string{"", "10g", "0755", "-1", "90s", "true", "a,b", "root", "1e9k", "\x00"} {
		for _, k := range []string{"path", "size", "mode", "moed"} {
			f.Add(k, s)
		}
	}
	f.Fuzz(func(t *testing.T, key, val string) {
		const secret = "s3cr3t-v4lue"
		got, err := catalog.DecodeOptions[sample](map[string]string{key: val, "password": secret})
		if key == "password" {
			return
		}
		known := false
		for _, k := range catalog.Describe[sample]() {
			known = known || k.Name == key
		}
		switch {
		case err == nil && !known:
			t.Errorf("unknown option %q was taken", key)
		case err == nil && (got.Size < 0 || got.Mode&^(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0):
			t.Errorf("%q=%q made %+v", key, val, got)
		case err == nil:
		case !errors.Is(err, errdefs.ErrInvalid), strings.Contains(err.Error(), "\n"),
			!strings.Contains(key+val, secret) && strings.Contains(err.Error(), secret):
			t.Errorf("%q=%q: error %q", key, val, err)
		}
	})
}
