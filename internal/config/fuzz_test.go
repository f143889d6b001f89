package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// FuzzLoad holds Load to its promises for any file: no panic, an error of one class and
// one line, or a configuration that is whole and shows no secret.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"",
		"version = 1\nplugin_dir = '/x'\n[log]\nlevel = 'debug'\n[socket]\nmode = \"0660\"\n",
		"[pool.fast]\npath = \"/srv\"\nlinger = '3s'\n[pool.\"b.ox\"]\ndriver = 'box'\nurl = 'u'\npassword = 'hunter2'\n",
		"log = { level = 'x', a.b.c = [1, {d = 2}] }\n",
		"[schedule.x]\ncron = '@daily'\npools = ['a*', 'b']\nkeep_last = 3\n", "[[schedule]]\n", "schedule.x.y.z = 1\n",
		"[[pool]]\n", "[pool]\nx = 1979-05-27T07:32:00Z\n", "\"\" = 1\n", "pool.x.y.z = 1\n", "a.\"b\\nc\" = '''\n'''\n", "[pool.x]\n\"a\\nb\" = 1\n",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		s := config.Source{File: file.Name(), Drivers: drivers()}
		socket, _ := config.FindControlSocket(s)
		if !filepath.IsAbs(socket) {
			t.Errorf("control socket is %q", socket)
		}
		c, err := config.Load(s)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %q (%s)", err, errdefs.Name(err))
			}
			return
		}
		if len(c.Pools) == 0 || c.ControlSocket() != socket {
			t.Errorf("%d pools, socket %q, found as %q", len(c.Pools), c.ControlSocket(), socket)
		}
		for _, v := range c.Values() {
			if strings.HasSuffix(v.Key, ".password") && v.Value != "REDACTED" {
				t.Errorf("%s is shown as %q", v.Key, v.Value)
			}
		}
	})
}
