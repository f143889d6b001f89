package front_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/managed/front"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// managed is a plugin as its author wrote it: it answers volume calls and nothing else, with paths of its own.
func managed(t *testing.T, socket string, answers map[string]string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.Contains(answer, "Err") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write([]byte(answer))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

func open(t *testing.T, name, socket string) (dir string, c *client.Client) {
	t.Helper()
	dir = t.TempDir()
	f, err := front.Open(t.Context(), front.Options{
		Dir: dir, Name: name, Implements: []string{"VolumeDriver"}, Log: slog.New(slog.DiscardHandler),
		Dial:     func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) },
		HostPath: func(p string) string { return "/host" + p },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	e, err := client.Dirs{Sockets: dir, Specs: []string{}}.Find(strings.TrimSuffix(name, ":latest"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err = client.New(e, client.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return dir, c
}

func TestFront(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "p.sock")
	managed(t, socket, map[string]string{
		"/VolumeDriver.Mount":  `{"Mountpoint":"/data/v"}`,
		"/VolumeDriver.Path":   `{"mountpoint":""}`,
		"/VolumeDriver.Get":    `{"Volume":{"Name":"v","Mountpoint":"/data/v","Status":{"n":12345678901234567890,"Mountpoint":"/mine"}}}`,
		"/VolumeDriver.List":   `{"Volumes":[{"Name":"v","mountpoint":"/data/v"},{"Name":"w"}]}`,
		"/VolumeDriver.Remove": `{"Err":"no"}`,
	})
	dir, c := open(t, "acme/disk:latest", socket)
	ctx := t.Context()

	kinds, err := c.Activate(ctx)
	if diff := cmp.Diff([]string{"VolumeDriver"}, kinds); diff != "" || err != nil {
		t.Errorf("activation: %v %s", err, diff)
	}
	if p, err := c.Volume().Mount(ctx, "v", "1"); p != "/host/data/v" || err != nil {
		t.Errorf("Mount: %q, %v", p, err)
	}
	if p, err := c.Volume().Path(ctx, "v"); p != "" || err != nil {
		t.Errorf("Path of what is not mounted: %q, %v", p, err)
	}
	info, err := c.Volume().Get(ctx, "v")
	if err != nil || info.Mountpoint != "/host/data/v" || info.Status["Mountpoint"] != "/mine" {
		t.Errorf("Get: %+v, %v", info, err)
	}
	var raw struct {
		Volume struct{ Status map[string]json.RawMessage }
	}
	if err := c.Call(ctx, "VolumeDriver.Get", struct{ Name string }{"v"}, &raw); err != nil {
		t.Error(err)
	}
	if n := string(raw.Volume.Status["n"]); n != "12345678901234567890" {
		t.Errorf("a number became %s", n)
	}
	all, err := c.Volume().List(ctx)
	if err != nil || len(all) != 2 || all[0].Mountpoint != "/host/data/v" || all[1].Mountpoint != "" {
		t.Errorf("List: %+v, %v", all, err)
	}
	if err := c.Volume().Remove(ctx, "v"); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("an error of the plugin became %v", err)
	}
	if link, err := os.Readlink(filepath.Join(dir, "acme/disk:latest.sock")); link != "disk.sock" || err != nil {
		t.Errorf("the name with its tag leads to %q, %v", link, err)
	}
}

// TestNobodyThere wants callers hung up on, without an answer, where the plugin does not come.
func TestNobodyThere(t *testing.T) {
	_, c := open(t, "disk:1", filepath.Join(t.TempDir(), "none.sock"))
	if _, err := c.Volume().Get(t.Context(), "v"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	if _, err := c.Activate(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("Activate: %v", err)
	}
}

// TestNames wants nothing taken from another plugin, and nothing left.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	o := front.Options{Dir: dir, Name: "acme/disk:latest", Log: slog.New(slog.DiscardHandler)}
	f, err := front.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := front.Open(t.Context(), o); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("a name that is taken: %v", err)
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(dir, "acme")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left after the end: %v", err)
	}
	if f, err = front.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestLongNameIsAnothers: a plugin that somebody else has under the name with its tag keeps it.
func TestLongNameIsAnothers(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "disk:latest.sock")
	managed(t, at, nil)
	o := front.Options{Dir: dir, Name: "disk:latest", Log: slog.New(slog.DiscardHandler)}
	f, err := front.Open(t.Context(), o)
	if err == nil {
		f.Close()
	}
	if !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("a name that is taken: %v", err)
	}
	if c, err := net.Dial("unix", at); err != nil {
		t.Errorf("the other plugin is cut off: %v", err)
	} else {
		_ = c.Close()
	}
	if _, err := os.Stat(filepath.Join(dir, "disk.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left after the failure: %v", err)
	}
}
