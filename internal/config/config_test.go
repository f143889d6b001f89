package config_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

var update = flag.Bool("update", false, "write the golden files")

// drivers are two drivers as the catalog would describe them.
func drivers() map[string]config.Driver {
	return map[string]config.Driver{
		"dir": {Keys: []string{"path"}},
		"box": {
			Keys:   []string{"url", "password", "size"},
			Secret: map[string]bool{"password": true},
			Check: func(options map[string]any) error {
				if options["size"] == "huge" {
					return errdefs.Errorf(errdefs.ErrInvalid, `key "size": "huge" is not a size such as 512m or 10g`)
				}
				if options["url"] == nil {
					return errdefs.Errorf(errdefs.ErrInvalid, `key "url" is missing: where the box is`)
				}
				return nil
			},
		},
	}
}

// write writes a file of the configuration and returns its path.
func write(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "remora.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func load(t testing.TB, file string, env ...string) (*config.Config, error) {
	t.Helper()
	return config.Load(config.Source{File: write(t, file), Env: env, Drivers: drivers()})
}

func mustLoad(t testing.TB, file string, env ...string) *config.Config {
	t.Helper()
	c, err := load(t, file, env...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, "")
	if c.PluginDir != "/run/docker/plugins" || c.RunDir != "/run/remora" || c.StateDir != "/var/lib/remora" ||
		c.ControlSocket() != "/run/remora/control.sock" || c.Socket.Mode != 0o600 || c.Log.Level != "info" || c.Log.Format != "auto" {
		t.Errorf("defaults are %+v", c)
	}
	want := []config.Pool{{
		Name: "remora", Driver: "dir", Options: map[string]any{},
		Volume: config.Volume{MountGrace: 2 * time.Minute, Refresh: time.Minute, TrashKeep: 72 * time.Hour, TrashMinFree: 5},
	}}
	if diff := cmp.Diff(want, c.Pools); diff != "" {
		t.Errorf("pools (-want +got):\n%s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "[log]\nlevel = \"warn\"\n[volume]\nlinger = \"1s\"\n")
	level := func(env []string, flags map[string]string) string {
		t.Helper()
		c, err := config.Load(config.Source{File: file, Env: env, Flags: flags, Drivers: drivers()})
		if err != nil {
			t.Fatal(err)
		}
		return c.Log.Level
	}
	env, flags := []string{"REMORA_LOG_LEVEL=error"}, map[string]string{"log.level": "debug"}
	for want, got := range map[string]string{
		"warn": level(nil, nil), "error": level(env, nil), "debug": level(env, flags),
	} {
		if got != want {
			t.Errorf("level is %q, want %q", got, want)
		}
	}
	if got := level([]string{"REMORA_LOG_LEVEL="}, nil); got != "warn" {
		t.Errorf("with an empty variable the level is %q, want that of the file", got)
	}
}

func TestPools(t *testing.T) {
	c := mustLoad(t, `
[volume]
linger = "5s"
refresh = "30s"
[pool.fast]
path = "/srv/fast"
linger = "0s"
[pool."b.ox"]
driver = "box"
url = "u"
size = 10
`, "REMORA_POOLS=more, fast", "REMORA_POOL_MORE_PATH=/srv/more", "REMORA_POOL_FAST_REFRESH=9s", "REMORA_POOL_B_OX_SIZE=11")
	volume := func(linger, refresh time.Duration) config.Volume {
		return config.Volume{Linger: linger, MountGrace: 2 * time.Minute, Refresh: refresh, TrashKeep: 72 * time.Hour, TrashMinFree: 5}
	}
	want := []config.Pool{
		{Name: "b.ox", Driver: "box", Volume: volume(5*time.Second, 30*time.Second), Options: map[string]any{"url": "u", "size": "11"}},
		{Name: "fast", Driver: "dir", Volume: volume(0, 9*time.Second), Options: map[string]any{"path": "/srv/fast"}},
		{Name: "more", Driver: "dir", Volume: volume(5*time.Second, 30*time.Second), Options: map[string]any{"path": "/srv/more"}},
	}
	if diff := cmp.Diff(want, c.Pools); diff != "" {
		t.Errorf("pools (-want +got):\n%s", diff)
	}
}

// Every key must be settable by the environment alone, as a managed plugin has nothing else.
func TestEveryKeyHasAVariable(t *testing.T) {
	samples := map[string]string{"path": "/srv/other", "duration": "77s", "percent": "7%", "mode": "0640", "text": "operators", "address": "127.0.0.1:9464", "number": "7", "list": "/run/a.sock, /run/b.sock", "plugins.insecure_registries": "registry.lan:5000, 10.0.0.0/8"}
	together := []string{"REMORA_METRICS_LISTEN=:1", "REMORA_METRICS_TLS_CA=/a", "REMORA_METRICS_TLS_CERT=/c", "REMORA_METRICS_TLS_KEY=/k"}
	for _, k := range config.Keys() {
		value, ok := samples[k.Name]
		if !ok {
			value, ok = samples[k.Type]
		}
		if !ok {
			words := strings.Split(k.Type, "|")
			value = words[len(words)-1]
		}
		env := []string{k.Env + "=" + value}
		if strings.HasPrefix(k.Name, "metrics.tls_") {
			env = append(together, env...) // none of them can be alone
		}
		c := mustLoad(t, "", env...)
		i := slices.IndexFunc(c.Values(), func(v config.Value) bool { return v.Key == k.Name })
		if i < 0 || c.Values()[i] != (config.Value{Key: k.Name, Value: value, Source: k.Env}) {
			t.Errorf("%s=%s gives %v", k.Env, value, c.Values())
		}
		if k.Help == "" || !strings.HasPrefix(k.Env, "REMORA_") {
			t.Errorf("key %+v is not described", k)
		}
	}
	c := mustLoad(t, "", "REMORA_POOLS=x", "REMORA_POOL_X_DRIVER=box", "REMORA_POOL_X_URL=u", "REMORA_POOL_X_LINGER=3s")
	if p := c.Pools[0]; p.Name != "x" || p.Driver != "box" || p.Options["url"] != "u" || p.Linger != 3*time.Second {
		t.Errorf("a pool from the environment is %+v", p)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestValues(t *testing.T) {
	file := write(t, `version = 1
log.level = "debug"

[volume]
linger = "2s"

[pool.fast]
driver = "box"
url = "https://box"
password = "hunter2"
linger = "9s"

[pool.inline]
driver = "box"
url = "v"
`)
	c, err := config.Load(config.Source{
		File: file, Drivers: drivers(), Flags: map[string]string{"run_dir": "/run/other"},
		Env: []string{"REMORA_STATE_DIR=/srv/state", "REMORA_POOL_INLINE_PASSWORD=hunter3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, v := range c.Values() {
		fmt.Fprintf(&out, "%s = %s (%s)\n", v.Key, v.Value, strings.TrimPrefix(v.Source, filepath.Dir(file)+"/"))
	}
	golden(t, "values.golden", out.String())
}

func TestWarnings(t *testing.T) {
	secret := "[pool.x]\ndriver = \"box\"\nurl = \"u\"\npassword = \"p\"\n"
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"plain, readable", "", 0o644, ""},
		{"secret, private", secret, 0o640, ""},
		{"secret, readable", secret, 0o644, "holds secrets, and everybody may read it (mode 0644); chmod o-r "},
		{"plain, writable", "", 0o664, "others than its owner may write it (mode 0664); chmod go-w "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, tt.text)
			if err := os.Chmod(file, tt.mode); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(config.Source{File: file, Drivers: drivers()})
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			if tt.want != "" {
				want = []string{file + ": " + tt.want + file}
			}
			if diff := cmp.Diff(want, c.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamedFileMustBeThere(t *testing.T) {
	_, err := config.Load(config.Source{File: filepath.Join(t.TempDir(), "none.toml"), Drivers: drivers()})
	if !errors.Is(err, errdefs.ErrInvalid) || !errors.Is(err, os.ErrNotExist) || len(errdefs.Hints(err)) != 1 {
		t.Errorf("error is %v, hints %q", err, errdefs.Hints(err))
	}
}

func TestFindControlSocket(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		env        []string
		want       string
		fails      bool
	}{
		{"default", "", nil, "/run/remora/control.sock", false},
		{"file", "run_dir = \"/run/a\"", nil, "/run/a/control.sock", false},
		{"environment", "run_dir = \"/run/a\"", []string{"REMORA_RUN_DIR=/run/b"}, "/run/b/control.sock", false},
		{"other keys are wrong", "run_dir = \"/run/a\"\nfrob = 1\n[pool.X]\n", nil, "/run/a/control.sock", false},
		{"no TOML", "run_dir = ", []string{"REMORA_RUN_DIR=/run/b"}, "/run/b/control.sock", true},
		{"wrong itself", "run_dir = \"a\"", nil, "/run/remora/control.sock", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.FindControlSocket(config.Source{File: write(t, tt.text), Env: tt.env})
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("socket is %q, %v, want %q, an error %v", got, err, tt.want, tt.fails)
			}
		})
	}
}

// What holds for the trash of all pools, a pool can have otherwise.
func TestTrash(t *testing.T) {
	text := "[trash]\nkeep = \"0\"\nmin_free = 12.5\n[pool.a]\n[pool.b]\ntrash_keep = \"1h\"\ntrash_min_free = \"0%\"\n[pool.c]\n"
	c, err := load(t, text, "REMORA_TRASH_MIN_FREE=7%", "REMORA_POOL_C_TRASH_KEEP=10m")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]config.Volume{"a": {TrashMinFree: 7}, "b": {TrashKeep: time.Hour}, "c": {TrashKeep: 10 * time.Minute, TrashMinFree: 7}}
	for _, p := range c.Pools {
		got := config.Volume{TrashKeep: p.TrashKeep, TrashMinFree: p.TrashMinFree}
		if diff := cmp.Diff(want[p.Name], got); diff != "" {
			t.Errorf("pool %s (-want +got):\n%s", p.Name, diff)
		}
	}
}
