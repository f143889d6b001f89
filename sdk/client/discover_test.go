package client

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// layout makes directories of an engine below a short temporary one. A file whose name
// ends in .sock becomes a socket, any other gets the content.
func layout(t *testing.T, files map[string]string) (Dirs, string) {
	t.Helper()
	root, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if content == "socket" {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Dirs{Sockets: filepath.Join(root, "run"), Specs: []string{filepath.Join(root, "etc"), filepath.Join(root, "lib")}}, root
}

func TestFindTakesTheFirst(t *testing.T) {
	order := []string{
		"run/x.sock", "run/x/x.sock",
		"etc/x.spec", "etc/x/x.spec", "etc/x.json", "etc/x/x.json",
		"lib/x.spec", "lib/x/x.spec", "lib/x.json", "lib/x/x.json",
	}
	content := map[string]string{".sock": "socket", ".spec": "\n tcp://127.0.0.1:1 \n", ".json": `{"Name":"other","Addr":"tcp://127.0.0.1:1"}`}
	files := make(map[string]string)
	for _, f := range order {
		files[f] = content[filepath.Ext(f)]
	}
	dirs, root := layout(t, files)
	for _, want := range order {
		ep, err := dirs.Find("x")
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := filepath.Rel(root, ep.Source); got != want {
			t.Errorf("found %s, want %s", got, want)
		}
		if ep.Name != "x" {
			t.Errorf("%s: name %q, want that of the file", want, ep.Name)
		}
		if err := os.Remove(filepath.Join(root, want)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := dirs.Find("x")
	if !errors.Is(err, errdefs.ErrNotFound) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("nothing left: error %v, want ErrNotFound with a hint", err)
	}
}

func TestFindSockets(t *testing.T) {
	dirs, root := layout(t, map[string]string{"run/real.sock": "socket", "run/plain.sock": "no socket", "run/a b%.sock": "socket"})
	if err := os.Symlink("real.sock", filepath.Join(root, "run/link.sock")); err != nil {
		t.Fatal(err)
	}
	if ep, err := dirs.Find("link"); err != nil || ep.Source != filepath.Join(root, "run/link.sock") {
		t.Errorf("link to a socket: %+v, %v", ep, err)
	}
	if _, err := dirs.Find("plain"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("plain file: error %v, want ErrNotFound", err)
	}
	ep, err := dirs.Find("a b%")
	if err != nil {
		t.Fatal(err)
	}
	if tg, err := ep.target(); err != nil || tg.socket != ep.Source {
		t.Errorf("address %q leads to %q, want %q (%v)", ep.Addr, tg.socket, ep.Source, err)
	}
}

func TestFindRefusesNames(t *testing.T) {
	dirs, _ := layout(t, map[string]string{"x.spec": "tcp://127.0.0.1:1", "run/vendor/fs.sock": "socket"})
	for _, name := range []string{"", "../x", "/x", "a\x00b"} {
		if _, err := dirs.Find(name); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("Find(%q): error %v, want ErrInvalid", name, err)
		}
	}
	if _, err := dirs.Find("vendor/fs"); err != nil {
		t.Errorf("a name with a slash: %v", err)
	}
	if _, err := dirs.Find(strings.Repeat("x", 300)); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a very long name: error %v, want ErrNotFound", err)
	}
}

func TestSpecFiles(t *testing.T) {
	long := "/" + strings.Repeat("a", maxSocketPath)
	tests := []struct {
		file, content string
		want          Endpoint
		class         error
		text          string
	}{
		{file: "x.spec", content: "unix:///run/x.sock\n", want: Endpoint{Addr: "unix:///run/x.sock"}},
		{file: "x.spec", content: "tcp://host:80", want: Endpoint{Addr: "tcp://host:80"}},
		{file: "x.spec", content: "http://[::1]:80", want: Endpoint{Addr: "http://[::1]:80"}},
		{file: "x.spec", content: "https://host:80", want: Endpoint{Addr: "https://host:80", TLS: &insecure}},
		{file: "x.spec", content: "", class: errdefs.ErrInvalid, text: "no scheme"},
		{file: "x.spec", content: "/run/x.sock", class: errdefs.ErrInvalid, text: "no scheme"},
		{file: "x.spec", content: "127.0.0.1:8080", class: errdefs.ErrInvalid, text: "first path segment"},
		{file: "x.spec", content: "localhost:8080", class: errdefs.ErrInvalid, text: `scheme "localhost"`},
		{file: "x.spec", content: "fd://3", class: errdefs.ErrInvalid, text: `scheme "fd"`},
		{file: "x.spec", content: "npipe:////./pipe/x", class: errdefs.ErrUnsupported, text: "Windows"},
		{file: "x.spec", content: "unix://var/run/x.sock", class: errdefs.ErrInvalid, text: "three slashes"},
		{file: "x.spec", content: "unix:///", class: errdefs.ErrInvalid, text: "no path"},
		{file: "x.spec", content: "unix://" + long, class: errdefs.ErrInvalid, text: "at most 107 bytes"},
		{file: "x.spec", content: "tcp:///x", class: errdefs.ErrInvalid, text: "no host"},
		{file: "x.spec", content: "tcp://" + strings.Repeat("a", maxSpec), class: errdefs.ErrInvalid, text: "larger than"},
		{file: "x.json", content: `{"addr":"tcp://h:1"} trailing`, want: Endpoint{Addr: "tcp://h:1"}},
		{file: "x.json", content: `{"Addr":"https://h:1"}`, want: Endpoint{Addr: "https://h:1"}},
		{
			file: "x.json", content: `{"Addr":"https://h:1","TLSConfig":{"CertFile":"c","KeyFile":"k"}}`,
			want: Endpoint{Addr: "https://h:1", TLS: &TLSConfig{CertFile: "c", KeyFile: "k", InsecureSkipVerify: true}},
		},
		{
			file: "x.json", content: `{"Addr":"https://h:1","TLSConfig":{"CAFile":"ca","ExclusiveRootPools":true,"MinVersion":771}}`,
			want: Endpoint{Addr: "https://h:1", TLS: &TLSConfig{CAFile: "ca", ExclusiveRootPools: true, MinVersion: 771}},
		},
		{file: "x.json", content: "", class: errdefs.ErrInvalid, text: "empty file"},
		{file: "x.json", content: "{", class: errdefs.ErrInvalid, text: "not the JSON"},
		{file: "x.json", content: `{"Addr":7}`, class: errdefs.ErrInvalid, text: "not the JSON"},
		{file: "x.json", content: "null", class: errdefs.ErrInvalid, text: "no scheme"},
	}
	for _, tt := range tests {
		t.Run(tt.content[:min(len(tt.content), 30)], func(t *testing.T) {
			dirs, root := layout(t, map[string]string{"etc/" + tt.file: tt.content})
			got, err := dirs.Find("x")
			if tt.class != nil {
				if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v, want %v with %q on one line", err, tt.class, tt.text)
				}
				if prefix := `plugin "x": ` + filepath.Join(root, "etc", tt.file) + ": "; !strings.HasPrefix(err.Error(), prefix) {
					t.Errorf("error %v does not begin with %q", err, prefix)
				}
				return
			}
			tt.want.Name, tt.want.Source = "x", filepath.Join(root, "etc", tt.file)
			if err != nil || !cmp.Equal(got, tt.want) {
				t.Errorf("error %v, difference:\n%s", err, cmp.Diff(tt.want, got))
			}
		})
	}
}

func TestList(t *testing.T) {
	dirs, root := layout(t, map[string]string{
		"run/a.sock":     "socket",
		"run/b/b.sock":   "socket",
		"run/c/d.sock":   "socket", // not the directory's name
		"run/plain.sock": "no socket",
		"run/odd.foo":    "socket",
		"etc/a.spec":     "tcp://h:1",
		"etc/e.json":     `{"Addr":"tcp://h:2"}`,
		"etc/f/f.json":   `{"Addr":"tcp://h:3"}`,
		"etc/f/f.spec":   "tcp://h:4",
		"etc/g/g.conf":   "",
		"etc/g/g.spec":   "tcp://h:5", // hidden by g.conf
		"etc/README":     "",
		"lib/bad.spec":   "nonsense",
	})
	if err := os.Symlink("a.sock", filepath.Join(root, "run/link.sock")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for ep, err := range dirs.List() {
		rel, _ := filepath.Rel(root, ep.Source)
		line := ep.Name + " " + rel
		if err != nil {
			line += " " + errdefs.Name(err)
		}
		got = append(got, line)
	}
	want := []string{
		"a run/a.sock", "b run/b/b.sock", "odd run/odd.foo invalid",
		"a etc/a.spec", "e etc/e.json", "f etc/f/f.spec", "bad lib/bad.spec invalid",
	}
	if !cmp.Equal(got, want) {
		t.Errorf("difference (-want +got):\n%s", cmp.Diff(want, got))
	}
	n := 0
	for range dirs.List() {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d plugins after a break", n)
	}
}

func TestListDirectories(t *testing.T) {
	dirs, root := layout(t, map[string]string{"run": "a file, not a directory", "lib/x.spec": "tcp://h:1"})
	var got []string
	for ep, err := range dirs.List() {
		if err != nil {
			if !strings.HasPrefix(err.Error(), `plugin directory "`+filepath.Join(root, "run")+`": `) || len(errdefs.Hints(err)) == 0 {
				t.Errorf("error %v", err)
			}
			got = append(got, "error")
			continue
		}
		got = append(got, ep.Name)
	}
	if want := []string{"error", "x"}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q: one unreadable directory, one missing, one good", got, want)
	}
}

func TestWaitForPluginThatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dirs := Dirs{Sockets: t.TempDir(), Specs: []string{t.TempDir()}}
		start := time.Now()
		if _, err := dirs.Wait(t.Context(), "x"); !errors.Is(err, errdefs.ErrNotFound) || time.Since(start) != 15*time.Second {
			t.Errorf("absent: %v after %s, want ErrNotFound after 15s", err, time.Since(start))
		}
		time.AfterFunc(5*time.Second, func() {
			_ = os.WriteFile(filepath.Join(dirs.Specs[0], "x.spec"), []byte("tcp://h:1"), 0o600)
		})
		start = time.Now()
		if _, err := dirs.Wait(t.Context(), "x"); err != nil || time.Since(start) != 7*time.Second {
			t.Errorf("present after 5s: %v after %s, want the look at 7s to find it", err, time.Since(start))
		}
		start = time.Now()
		if err := os.WriteFile(filepath.Join(dirs.Specs[0], "y.spec"), []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := dirs.Wait(t.Context(), "y"); !errors.Is(err, errdefs.ErrInvalid) || time.Since(start) != 0 {
			t.Errorf("wrong file: %v after %s, want ErrInvalid at once", err, time.Since(start))
		}
	})
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		ep   Endpoint
		want string
	}{
		{Endpoint{Addr: "unix:///x.sock"}, ""},
		{Endpoint{Addr: "https://h:1", TLS: &TLSConfig{CAFile: "ca"}}, ""},
		{Endpoint{Addr: "https://h:1", TLS: &insecure}, "not checked"},
		{Endpoint{Addr: "tcp://h:1", TLS: &TLSConfig{CAFile: "ca"}}, "plain HTTP"},
		{Endpoint{Addr: "unix:///x.sock", TLS: &TLSConfig{CAFile: "ca"}}, "unix socket"},
		{Endpoint{Addr: "http://h:1/sub"}, `path "/sub"`},
	}
	for _, tt := range tests {
		got := strings.Join(tt.ep.Warnings(), " ")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%+v: warnings %q, want %q", tt.ep, got, tt.want)
		}
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte("unix:///run/x.sock\n"))
	f.Add([]byte("https://[::1%25eth0]:1"))
	f.Add([]byte(`{"Addr":"https://h:1","TLSConfig":{"CAFile":"ca","ClientAuth":4,"Passphrase":"p"}}`))
	f.Add([]byte(`{"Addr":"unix:///a%20b","TLSConfig":null}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, parse := range []func([]byte) (Endpoint, error){parseSpec, parseJSON} {
			ep, err := parse(content)
			if err != nil {
				if errdefs.Class(err) == nil || strings.ContainsAny(err.Error(), "\n\r") {
					t.Errorf("error %q has no class or more than one line", err)
				}
				continue
			}
			// What was accepted can be called.
			ep.TLS = nil // its files are not there
			c, err := New(ep, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := http.NewRequest(http.MethodPost, c.base+"/Plugin.Activate", nil); err != nil {
				t.Errorf("address %q: %v", ep.Addr, err)
			}
		}
	})
}
