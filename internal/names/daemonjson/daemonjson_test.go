package daemonjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

var wanted = Wanted{Servers: []string{"10.32.0.1"}, Search: []string{"remora.local"}}

// file writes a daemon.json; "" is none.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker", "daemon.json")
	if text != "" {
		put(t, path, text)
	}
	return path
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// install writes the change, and returns what was kept of it, as it comes back from a disk.
func install(t *testing.T, path string, w Wanted, saved *Saved) *Saved {
	t.Helper()
	c, err := Install(path, w, saved)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c.Saved)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(); err != nil {
		t.Fatal(err)
	}
	back := new(Saved)
	if err := json.Unmarshal(text, back); err != nil {
		t.Fatal(err)
	}
	return back
}

func reset(t *testing.T, path string, saved *Saved) {
	t.Helper()
	c, err := Reset(path, *saved)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(); err != nil {
		t.Fatal(err)
	}
}

// What is written, and that all of it can be taken back to the last byte.
func TestThereAndBack(t *testing.T) {
	for _, tt := range []struct{ what, before, after string }{
		{"no file", "", "{\n  \"dns\": [\"10.32.0.1\"],\n  \"dns-search\": [\"remora.local\"]\n}\n"},
		{"blank", " \n\n", "{\n  \"dns\": [\"10.32.0.1\"],\n  \"dns-search\": [\"remora.local\"]\n}\n"},
		{"empty braces", "{ \n}", "{\n  \"dns\": [\"10.32.0.1\"],\n  \"dns-search\": [\"remora.local\"]\n}"},
		{"tabs", "{\n\t\"live-restore\": true\n}\n", "{\n\t\"live-restore\": true,\n\t\"dns\": [\"10.32.0.1\"],\n\t\"dns-search\": [\"remora.local\"]\n}\n"},
		{"one line", `{"a":{"dns":["x"]},"b":1}`, `{"a":{"dns":["x"]},"b":1,"dns": ["10.32.0.1"],"dns-search": ["remora.local"]}`},
		{"CRLF", "{\r\n    \"a\" : 1.50 ,\r\n    \"b\" : \"\\u00e9\"\r\n}\r\n", "{\r\n    \"a\" : 1.50 ,\r\n    \"b\" : \"\\u00e9\",\r\n    \"dns\": [\"10.32.0.1\"],\r\n    \"dns-search\": [\"remora.local\"]\r\n}\r\n"},
		{"servers of others", "{\n  \"dns\": [\n    \"8.8.8.8\"\n  ],\n  \"x\": 1e400\n}", "{\n  \"dns\": [\"10.32.0.1\", \"8.8.8.8\"],\n  \"x\": 1e400,\n  \"dns-search\": [\"remora.local\"]\n}"},
		{"ours among others", `{"dns":["8.8.8.8","10.32.0.1"], "dns-search" : [ ]}`, `{"dns":["10.32.0.1", "8.8.8.8"], "dns-search" : ["remora.local"]}`},
		{"all there", "{\"dns\":[\"10.32.0.1\",\"1.1.1.1\"],\n\"dns-search\":[\"remora.local\"]}\n", "{\"dns\":[\"10.32.0.1\",\"1.1.1.1\"],\n\"dns-search\":[\"remora.local\"]}\n"},
		{"odd keys", `{"a\"": 1, "\\": 2, "dn\u0073": ["9.9.9.9"]}`, `{"a\"": 1, "\\": 2, "dn\u0073": ["10.32.0.1", "9.9.9.9"], "dns-search": ["remora.local"]}`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			path := file(t, tt.before)
			saved := install(t, path, wanted, nil)
			if diff := cmp.Diff(tt.after, read(t, path)); diff != "" {
				t.Errorf("installed (-want +got):\n%s", diff)
			}
			// Once more, with and without what was kept, is the same.
			again := install(t, path, wanted, saved)
			if diff := cmp.Diff(tt.after, read(t, path)); diff != "" {
				t.Errorf("installed twice (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(saved, again); diff != "" {
				t.Errorf("kept (-first +second):\n%s", diff)
			}
			// Other servers take the place of those before.
			moved := install(t, path, Wanted{Servers: []string{"10.40.0.1", "fd00::1"}, Search: []string{"corp.example"}}, saved)
			if got := read(t, path); strings.Contains(got, "remora.local") && !strings.Contains(tt.before, "remora.local") || !strings.Contains(got, `["10.40.0.1", "fd00::1"`) {
				t.Errorf("moved:\n%s", got)
			}
			reset(t, path, moved)
			if diff := cmp.Diff(tt.before, read(t, path)); diff != "" {
				t.Errorf("reset (-want +got):\n%s", diff)
			}
			reset(t, path, moved)
			if diff := cmp.Diff(tt.before, read(t, path)); diff != "" {
				t.Errorf("reset twice (-want +got):\n%s", diff)
			}
		})
	}
}

// What somebody else wrote after us stays.
func TestChangedSince(t *testing.T) {
	for _, tt := range []struct{ what, before, meanwhile, after string }{
		{"a key after ours", "{\n  \"a\": 1\n}\n", "{\n  \"a\": 1,\n  \"dns\": [\"10.32.0.1\"],\n  \"dns-search\": [\"remora.local\"],\n  \"b\": 2\n}\n", "{\n  \"a\": 1,\n  \"b\": 2\n}\n"},
		{"a key before ours", "", "{\n  \"z\": 0,\n  \"dns\": [\"10.32.0.1\"],\n  \"dns-search\": [\"remora.local\"]\n}\n", "{\n  \"z\": 0\n}\n"},
		{"one more server", "{}", "{\"dns\": [\"10.32.0.1\", \"9.9.9.9\"],\n\"dns-search\": [\"remora.local\"]}", `{"dns": ["9.9.9.9"]}`},
		{"formatted anew", `{"dns":["8.8.8.8"]}`, "{\n  \"dns-search\": [\n    \"remora.local\"\n  ],\n  \"dns\": [\n    \"10.32.0.1\",\n    \"8.8.8.8\"\n  ]\n}", "{\n  \"dns\": [\"8.8.8.8\"]\n}"},
		{"taken out", `{"a":1}`, `{"a":1}`, `{"a":1}`},
		{"removed", `{"a":1}`, "", ""},
		{"emptied", `{"a":1}`, " ", " "},
	} {
		t.Run(tt.what, func(t *testing.T) {
			path := file(t, tt.before)
			saved := install(t, path, wanted, nil)
			if put(t, path, tt.meanwhile); tt.meanwhile == "" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			reset(t, path, saved)
			if diff := cmp.Diff(tt.after, read(t, path)); diff != "" {
				t.Errorf("reset (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"{\n  \"a\": 1,\n}\n":              "is not JSON: line 3, column 1: ",
		"{\"a\": 1":                        "is not JSON: line 1, column 8: it ends too early",
		"{\n  // a comment\n  \"a\": 1\n}": "is not JSON: line 2, column 3: ",
		"{\"a\": 1}\n{\"b\": 2}":           "is not JSON: line 2, column 1: there is more after the object",
		"\xef\xbb\xbf{}":                   "begins with a byte order mark",
		"[]":                               "is no object in braces",
		"null":                             "is no object in braces",
		`{"dns": "8.8.8.8"}`:               `"dns" is not a list of texts`,
		`{"dns": [1]}`:                     `"dns" is not a list of texts`,
		`{"dns-search": {"a": 1}}`:         `"dns-search" is not a list of texts`,
		`{"dns": ["1.1.1.1"], "dns": []}`:  `has "dns" twice`,
		"{\"a\": \"" + strings.Repeat("x", maxFile) + "\"}": "is no file of at most",
	} {
		path := file(t, text)
		for _, try := range []func() error{
			func() error { _, err := Install(path, wanted, nil); return err },
			func() error { _, err := Existing(path, Saved{}); return err },
		} {
			err := try()
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "daemon.json") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.40q: %v, want %s", text, err, want)
			}
		}
		if read(t, path) != text {
			t.Errorf("%.40q was changed", text)
		}
	}
	dir := t.TempDir()
	if _, err := Install(dir, wanted, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
}

// Mode and symbolic link stay, and a file that somebody changes at the same time is left to him.
func TestApply(t *testing.T) {
	path := file(t, `{"a":1}`)
	link := filepath.Join(t.TempDir(), "daemon.json")
	if err := errors.Join(os.Chmod(path, 0o640), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	install(t, link, wanted, nil)
	fi, err := os.Stat(path)
	if err != nil || fi.Mode() != 0o640 || !strings.Contains(read(t, path), "remora.local") {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", fi.Mode(), err)
	}
	c, err := Install(path, Wanted{Servers: []string{"10.1.1.1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, `{"a":2}`)
	if err := c.Apply(); !errors.Is(err, errdefs.ErrInUse) || read(t, path) != `{"a":2}` {
		t.Errorf("changed meanwhile: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestDiff(t *testing.T) {
	path := file(t, "{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3,\n  \"d\": 4\n}")
	c, err := Install(path, wanted, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "--- " + path + "\n+++ " + path + `
@@ -2,5 +2,7 @@
   "a": 1,
   "b": 2,
   "c": 3,
-  "d": 4
+  "d": 4,
+  "dns": ["10.32.0.1"],
+  "dns-search": ["remora.local"]
 }
\ No newline at end of file
`
	if diff := cmp.Diff(want, c.Diff()); diff != "" {
		t.Errorf("diff (-want +got):\n%s", diff)
	}
	c, err = Install(file(t, ""), wanted, nil)
	if err != nil || !strings.Contains(c.Diff(), "@@ -0,0 +1,4 @@\n+{\n") {
		t.Errorf("%v, diff of a new file:\n%s", err, c.Diff())
	}
	far := "a\n" + strings.Repeat("same\n", 20) + "b\n"
	if got := diff("f", []byte(far), []byte(strings.NewReplacer("a\n", "A\n", "b\n", "B\n").Replace(far))); strings.Count(got, "@@ ") != 2 || !strings.Contains(got, "@@ -19,4 +19,4 @@") {
		t.Errorf("two hunks:\n%s", got)
	}
	same := file(t, `{"dns":["10.32.0.1"],"dns-search":["remora.local"]}`)
	if c, err := Install(same, wanted, nil); err != nil || c.Changes() || c.Diff() != "" {
		t.Errorf("nothing to do: %v, %q", err, c.Diff())
	}
}

func TestExisting(t *testing.T) {
	w, err := Existing(file(t, `{"dns":["8.8.8.8"],"dns-search":["lan"]}`), Saved{})
	if diff := cmp.Diff(Wanted{[]string{"8.8.8.8"}, []string{"lan"}}, w); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if w, err := Existing(file(t, ""), Saved{}); err != nil || len(w.Servers) != 0 {
		t.Errorf("no file: %v, %v", w, err)
	}
	// What was added is not asked, whatever the host's address is by now.
	for text, want := range map[string]Wanted{
		"": {}, `{"dns":["8.8.8.8"],"dns-search":["lan"]}`: {[]string{"8.8.8.8"}, []string{"lan"}},
	} {
		path := file(t, text)
		saved := install(t, path, wanted, nil)
		w, err := Existing(path, *saved)
		if diff := cmp.Diff(want, w, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
}

func TestRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker.pid")
	if got := Running(path); got != nil {
		t.Errorf("without a file: %q", got)
	}
	put(t, path, fmt.Sprintln(os.Getpid()))
	if diff := cmp.Diff(os.Args, Running(path)); diff != "" {
		t.Errorf("this process (-want +got):\n%s", diff)
	}
	for _, pid := range []string{"", "x", "-1", "999999999"} {
		put(t, path, pid)
		if got := Running(path); got != nil {
			t.Errorf("%q: %q", pid, got)
		}
	}
}

func TestFlags(t *testing.T) {
	if got := Flags([]string{"dockerd", "--dns=1.1.1.1", "--dns-search", "lan", "--dns-opt=x"}); !slices.Equal(got, []string{"--dns", "--dns-search"}) {
		t.Errorf("got %q", got)
	}
	if got := Flags([]string{"dockerd", "--dns-opt=x"}); got != nil {
		t.Errorf("got %q", got)
	}
}

// FuzzThereAndBack holds that any file that can be read is JSON with all that it had after the change, and what it
// was, to the byte, once that is taken back.
func FuzzThereAndBack(f *testing.F) {
	for _, s := range []string{"", "{}", `{"a":1}`, "{\n\t\"dns\" : [ \"1.1.1.1\" ] ,\"b\":{\"dns\":2}}\n", `{"dns-search":["a"],"\"":"\\"}`, `{"dns":null}`, `{"dn\u0073":[]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		path := filepath.Join(t.TempDir(), "daemon.json")
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Install(path, wanted, nil)
		if err != nil {
			return
		}
		var was, is map[string]json.RawMessage
		_ = json.Unmarshal(before, &was) // it may be empty
		if err := json.Unmarshal(c.After, &is); err != nil {
			t.Fatalf("%q became %q: %v", before, c.After, err)
		}
		for k, v := range was {
			if k != keyDNS && k != keySearch && string(is[k]) != string(v) {
				t.Errorf("%q became %q", before, c.After)
			}
		}
		if err := c.Apply(); err != nil {
			t.Fatal(err)
		}
		back, err := Reset(path, c.Saved)
		if err != nil {
			t.Fatal(err)
		}
		if string(back.After) != string(before) {
			t.Errorf("%q became %q, and then %q", before, c.After, back.After)
		}
	})
}
