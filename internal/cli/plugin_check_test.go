package cli

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// servePlugin serves a plugin that answers nothing but its activation, on a socket of that name.
func servePlugin(t *testing.T, name string, status int, activation string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "check")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/Plugin.Activate" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, activation)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		_ = os.RemoveAll(dir)
	})
	return path
}

func runCheck(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, told strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status = Main(ctx, append([]string{"plugin", "check"}, args...), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &told})
	return status, out.String(), told.String()
}

// TestCheckWithLoad: that there is nothing to put under load costs nobody the report.
func TestCheckWithLoad(t *testing.T) {
	t.Parallel()
	for activation, want := range map[string]int{"": exitBroken, `{"Implements":["LogDriver"]}`: exitFailed} {
		status := http.StatusOK
		if activation == "" {
			status = http.StatusInternalServerError
		}
		path := servePlugin(t, "my.sock", status, activation)
		got, out, told := runCheck(t, path, "--load", "--duration", "10ms", "--only", "plugin/activate")
		if got != want || !strings.Contains(out, "plugin/activate") || !strings.Contains(out, "\nmy: ") {
			t.Errorf("%q: status %d, want %d: %s%s", activation, got, want, out, told)
		}
	}
}

// TestCheckOfNothing: a plugin of which nothing was asked does not conform.
func TestCheckOfNothing(t *testing.T) {
	t.Parallel()
	path := servePlugin(t, "my.sock", http.StatusOK, `{"Implements":["authz"]}`)
	if status, out, told := runCheck(t, path, "--only", "volume/"); status != exitFailed || out != "" || !strings.Contains(told, "authz") {
		t.Errorf("status %d: %s%s", status, out, told)
	}
}

// TestCheckFinds finds a plugin by each form of its file.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	path := servePlugin(t, "a b#%?.sock", http.StatusOK, `{"Implements":["authz"]}`)
	dir := filepath.Dir(path)
	link := filepath.Join(dir, "plain.sock")
	spec, json := filepath.Join(dir, "x.spec"), filepath.Join(dir, "y.json")
	wrong := filepath.Join(dir, "wrong.json")
	for _, err := range []error{
		os.Symlink(path, link), os.WriteFile(spec, []byte("unix://"+link+"\n"), 0o600),
		os.WriteFile(json, []byte(`{"Name":"z","Addr":"unix://`+link+`"}`), 0o600), os.WriteFile(wrong, []byte(`{"Addr":"ftp://x"}`), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for arg, name := range map[string]string{path: "a b#%?", link: "plain", spec: "x", json: "y"} {
		if status, out, told := runCheck(t, arg, "--only", "plugin/activate"); status != exitOK || !strings.Contains(out, "\n"+name+": conforms") {
			t.Errorf("%s: status %d: %s%s", arg, status, out, told)
		}
	}
	if status, _, told := runCheck(t, wrong); status != exitFailed || !strings.Contains(told, "ftp") {
		t.Errorf("status %d: %s", status, told)
	}
}
