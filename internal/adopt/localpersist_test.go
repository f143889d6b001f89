package adopt

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func TestLocalPersist(t *testing.T) {
	dir := t.TempDir()
	mkdir(t, dir+"/images")
	write(t, dir+"/file", "")
	file := dir + "/local-persist.json"
	write(t, file, `{"state":{"b":"`+dir+`/images/","a":"`+dir+`/gone","c":"`+dir+`/file","d":"images","e f":"`+dir+`/images","g":""}}`)
	all, err := LocalPersist(file)
	if err != nil {
		t.Fatal(err)
	}
	same(t, told(dir, all), []string{
		"a /t/gone not-found: /t/gone: no such file or directory",
		"b /t/images",
		"c /t/file invalid: /t/file: not a directory",
		`d images invalid: path "images": not absolute`,
		"e f /t/images",
		`g  invalid: path "": not absolute`,
	})

	if _, err := LocalPersist(dir + "/none.json"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of no file: %v", err)
	}
	if _, err := LocalPersist(dir); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("of a directory: %v", err)
	}
}

func TestParseLocalPersist(t *testing.T) {
	got, err := parseLocalPersist(read(t, "testdata/local-persist/state.json"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"images": "/srv/images", "logs": "/var/log/apps"}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got, err := parseLocalPersist([]byte(`{"state":{}}`)); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	for _, bad := range []string{"", "{", "null", "[]", "{}", `{"state":null}`, `{"state":[]}`, `{"state":{"a":1}}`, `{"state":{"a":"/b"}`} {
		if got, err := parseLocalPersist([]byte(bad)); err == nil {
			t.Errorf("of %q: %v", bad, got)
		}
	}
}

func TestLocalPersistNamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.json")
	write(t, file, `{"mounts":{}}`)
	_, err := LocalPersist(file)
	if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), file+": not a state file of local-persist") {
		t.Errorf("error %v", err)
	}
}

func FuzzLocalPersist(f *testing.F) {
	f.Add(read(f, "testdata/local-persist/state.json"))
	f.Add([]byte(`{"state":{"a":"\u0000"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := parseLocalPersist(data)
		if err == nil && state == nil {
			t.Error("neither a state nor an error")
		}
		for name := range state {
			if p := Propose(name); p != "" && volume.CheckName(p) != nil {
				t.Errorf("%q is proposed for %q", p, name)
			}
		}
	})
}
