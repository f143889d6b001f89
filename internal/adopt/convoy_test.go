package adopt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestConvoyVFS(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/convoy")); err != nil {
		t.Fatal(err)
	}
	mkdir(t, dir+"/vol1", dir+"/old", dir+"/snapshots")
	write(t, dir+"/config/vfs.cfg", "{}")
	write(t, dir+"/config/vfs_volume_gone.json", `{"Name":"gone","Path":"/opt/vfs/gone"}`)
	write(t, dir+"/config/vfs_volume_torn.json", `{"Name":"torn","Pa`)
	write(t, dir+"/config/vfs_volume_.json", `{}`)
	all, err := ConvoyVFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, told(dir, all), []string{
		"gone /t/gone not-found: /t/gone: no such file or directory",
		"old /t/old",
		"torn  invalid: /t/config/vfs_volume_torn.json: unexpected end of JSON input",
		"vol1 /t/vol1",
	})

	_, err = ConvoyVFS(dir + "/vol1")
	if !errors.Is(err, errdefs.ErrNotFound) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("of a directory without config: %v", err)
	}
}

func TestParseConvoy(t *testing.T) {
	for key, want := range map[string]string{
		"vol1":                                 "vol1 in vol1",
		"6fe9d1e4-3a0b-4b5e-a79d-0a0f4b5f7a22": "old in old",
	} {
		name, folder, err := parseConvoy(key, read(t, "testdata/convoy/config/vfs_volume_"+key+".json"))
		if got := name + " in " + folder; err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", key, got, err, want)
		}
	}
	for _, bad := range []string{
		"", "null", "{}", "[]", `{"Name":1}`, `{"Name":"b","Path":"/v/b"}`, `{"Name":"a","Path":"/"}`, `{"Name":"a","Path":"/v/.."}`,
		`{"Name":"a","Path":"/v/config"}`, `{"UUID":"b","Path":"/v/b"}`, `{"UUID":"a"}`,
	} {
		if name, folder, err := parseConvoy("a", []byte(bad)); err == nil {
			t.Errorf("of %s: %q in %q", bad, name, folder)
		}
	}
	for _, bad := range []string{"..", "a/b", "config"} {
		if name, folder, err := parseConvoy(bad, []byte(`{"Name":"`+bad+`"}`)); err == nil {
			t.Errorf("of %s: %q in %q", bad, name, folder)
		}
	}
}

func FuzzConvoy(f *testing.F) {
	f.Add("vol1", read(f, "testdata/convoy/config/vfs_volume_vol1.json"))
	f.Add("6fe9d1e4-3a0b-4b5e-a79d-0a0f4b5f7a22", read(f, "testdata/convoy/config/vfs_volume_6fe9d1e4-3a0b-4b5e-a79d-0a0f4b5f7a22.json"))
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		name, folder, err := parseConvoy(key, data)
		if err != nil {
			return
		}
		if at := filepath.Join("/v", folder); name == "" || filepath.Dir(at) != "/v" || strings.Contains(folder, "\x00") {
			t.Errorf("%q lies in %q", name, at)
		}
	})
}
