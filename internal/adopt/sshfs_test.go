package adopt

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestSshfsWrong(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"":                                      "unexpected end",
		"null":                                  "it has no object",
		"[]":                                    "another kind at byte",
		`{"a":null}`:                            `volume "a": it has no "Sshcmd"`,
		`{"a":{"Sshcmd":""}}`:                   `it has no "Sshcmd"`,
		`{"a":{"Sshcmd":"h:/","Password":[7]}}`: "another kind at byte",
		`{"a":{"Sshcmd":"h:/","Password":hunter2}}`: "invalid character",
		`{"state":{"a":"/srv/a"}}`:                  `volume "state"`,
	} {
		write(t, dir+"/s.json", text)
		_, err := Sshfs{File: dir + "/s.json"}.Volumes()
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := FindSshfs(dir + "/none"); !errors.Is(err, errdefs.ErrNotFound) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("nowhere: %v", err)
	}
	write(t, dir+"/s.json", `{"a":{"Sshcmd":"h:/","Options":["uid=1","uid=2"]}}`)
	all, err := Sshfs{File: dir + "/s.json"}.Volumes()
	if err != nil || !errors.Is(all[0].Err, errdefs.ErrInvalid) {
		t.Errorf("an option twice: %+v, %v", all, err)
	}
}

func TestServers(t *testing.T) {
	var all []Volume
	for _, cmd := range []string{"u@h:/p", "h:q", "u@[fe80::1]:/p", "h:/other"} {
		all = append(all, Volume{Options: map[string]string{"sshcmd": cmd}})
	}
	all = append(all, Volume{Options: map[string]string{"sshcmd": "bad:/"}, Err: errdefs.ErrInvalid})
	same(t, strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(sprint(Servers(all)))), []string{"h", "22", "fe80::1", "22"})
}

func FuzzSshfs(f *testing.F) {
	f.Add(read(f, "testdata/real/sshfs/sshfs-state.json"))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := parseSshfs(data)
		if err != nil {
			return
		}
		for name, v := range state {
			opts, err := Sshfs{Keys: "/keys"}.options(v)
			if err == nil && (opts["sshcmd"] == "" || v.Password != opts["password"] && v.Password != "") {
				t.Errorf("%q: %v", name, opts)
			}
		}
	})
}

func FuzzPlugin(f *testing.F) {
	f.Add(read(f, "testdata/real/sshfs/plugin/config.json"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if state, keys, is := parsePlugin(data); !is && state+keys != "" {
			t.Errorf("%q, %q of no plugin", state, keys)
		}
	})
}
