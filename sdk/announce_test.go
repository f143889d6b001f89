package sdk

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestAnnounceFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	tests := []struct {
		name string
		a    Announcement
		file string
		want string
	}{
		{"unix", Announcement{Addr: "unix:///run/p.sock"}, "p.spec", "unix:///run/p.sock\n"},
		{"tcp", Announcement{Addr: "tcp://127.0.0.1:8080"}, "p.spec", "tcp://127.0.0.1:8080\n"},
		{
			"https",
			Announcement{Addr: "https://h:1", TLS: &ClientTLS{CAFile: "/ca", CertFile: "/c", KeyFile: "/k"}},
			"p.json",
			"{\n  \"Name\": \"p\",\n  \"Addr\": \"https://h:1\",\n  \"TLSConfig\": {\n    \"CAFile\": \"/ca\",\n    \"CertFile\": \"/c\",\n    \"KeyFile\": \"/k\"\n  }\n}\n",
		},
		{
			"verifies nothing",
			Announcement{Addr: "https://h:1", TLS: &ClientTLS{InsecureSkipVerify: true}},
			"p.json",
			"{\n  \"Name\": \"p\",\n  \"Addr\": \"https://h:1\",\n  \"TLSConfig\": {\n    \"InsecureSkipVerify\": true\n  }\n}\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.a.Name, tt.a.Dir = "p", dir
			remove, err := Announce(tt.a)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, tt.file)
			b, err := os.ReadFile(path)
			if err != nil || string(b) != tt.want {
				t.Errorf("%s: %q, %v, want %q", tt.file, b, err, tt.want)
			}
			if tt.a.TLS != nil && !json.Valid(b) {
				t.Error("not JSON")
			}
			if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o644 {
				t.Errorf("mode %v, %v", fi.Mode(), err)
			}
			onlyHas(t, dir, tt.file)
			for range 2 {
				if err := remove(); err != nil {
					t.Errorf("remove: %v", err)
				}
			}
			onlyHas(t, dir)
		})
	}
}

func TestAnnouncementOfAnotherIsKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.spec")
	if err := os.WriteFile(path, []byte("old, and longer than what comes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := Announce(Announcement{Name: "p", Addr: "tcp://127.0.0.1:1", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	second, err := Announce(Announcement{Name: "p", Addr: "tcp://127.0.0.1:2", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := first(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "tcp://127.0.0.1:2\n" {
		t.Errorf("the successor's announcement: %q, %v", b, err)
	}
	if err := os.WriteFile(path, []byte("tcp://127.0.0.1:2\n# by hand\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("what somebody changed has gone: %v", err)
	}
}

// A plugin that was killed, and comes back with the other form of announcement, is found
// where it is now: engines look for the .spec first.
func TestAnnouncementInTheOtherForm(t *testing.T) {
	plain := Announcement{Name: "p", Addr: "tcp://127.0.0.1:1"}
	secret := Announcement{Name: "p", Addr: "https://127.0.0.1:2", TLS: &ClientTLS{CAFile: "/ca"}}
	for _, tt := range []struct {
		name          string
		before, after Announcement
		file          string
	}{
		{"spec, then json", plain, secret, "p.json"},
		{"json, then spec", secret, plain, "p.spec"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.before.Dir, tt.after.Dir = dir, dir
			// Of other plugins, and in another directory, nothing is touched.
			others := []string{"p", "pp.json", "pp.spec", "q.json", "q.spec"}
			for _, name := range others[1:] {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("tcp://h:1\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(dir, "p"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "p", "p.spec"), []byte("tcp://h:1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			first, err := Announce(tt.before) // killed, so it is not taken back
			if err != nil {
				t.Fatal(err)
			}
			second, err := Announce(tt.after)
			if err != nil {
				t.Fatal(err)
			}
			onlyHas(t, dir, slices.Sorted(slices.Values(append([]string{tt.file}, others...)))...)
			onlyHas(t, filepath.Join(dir, "p"), "p.spec")
			// One that had only been slow to stop takes nothing away.
			if err := first(); err != nil {
				t.Error(err)
			}
			onlyHas(t, dir, slices.Sorted(slices.Values(append([]string{tt.file}, others...)))...)
			if err := second(); err != nil {
				t.Error(err)
			}
			onlyHas(t, dir, others...)
		})
	}
}

// What cannot be taken away would be found in place of the new one, so that is not made.
func TestAnnouncementThatCannotTakeTheOtherAway(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "p.spec"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Announce(Announcement{Name: "p", Addr: "https://h:1", TLS: &ClientTLS{}, Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "p.spec") {
		t.Errorf("announced beside a p.spec that is a directory: %v", err)
	}
	onlyHas(t, dir, "p.spec")
}

func TestAnnouncementsThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	for _, a := range []Announcement{
		{Addr: "tcp://h:1"},
		{Name: "../p", Addr: "tcp://h:1"},
		{Name: ".p", Addr: "tcp://h:1"},
		{Name: "p\x00", Addr: "tcp://h:1"},
		{Name: "p"},
		{Name: "p", Addr: "/run/p.sock"},
		{Name: "p", Addr: "unix://run/p.sock"},
		{Name: "p", Addr: "unix://"},
		{Name: "p", Addr: "tcp://h"},
		{Name: "p", Addr: "npipe:////./pipe/p"},
		{Name: "p", Addr: "tcp://h:1\n"},
		{Name: "p", Addr: "ftp://h:1"},
	} {
		a.Dir = dir
		if _, err := Announce(a); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	onlyHas(t, dir)
	if _, err := Announce(Announcement{Name: "p", Addr: "tcp://h:1", Dir: "/proc/none"}); err == nil {
		t.Error("announced where nothing can be written")
	}
}
