package client

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var captured = regexp.MustCompile(`(?ms)^-- \d+ request --\n(POST /(\S+) .*?)(?:\n)?^-- \d+ answer --$`)

// TestLikeTheEngine compares what a Client sends with what was captured of the engine that
// it plays, byte for byte.
func TestLikeTheEngine(t *testing.T) {
	const id = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"
	docker, podman := Options{}, Options{Engine: Podman}
	create := func(opts map[string]string) func(context.Context, Volume) error {
		return func(ctx context.Context, v Volume) error { return v.Create(ctx, "v1", opts) }
	}
	size := map[string]string{"size": "10"}
	tests := []struct {
		name, file string
		opts       Options
		call       func(context.Context, Volume) error
		method     string
	}{
		{"activate", "dockerd-20.10", docker, func(ctx context.Context, v Volume) error { _, err := v.c.Activate(ctx); return err }, "Plugin.Activate"},
		{"create", "dockerd-20.10", docker, create(map[string]string{"size": "10", "path": "/a&b"}), "VolumeDriver.Create"},
		{"get", "dockerd-20.10", docker, func(ctx context.Context, v Volume) error { _, err := v.Get(ctx, "v1"); return err }, "VolumeDriver.Get"},
		{"list", "dockerd-20.10", docker, func(ctx context.Context, v Volume) error { _, err := v.List(ctx); return err }, "VolumeDriver.List"},
		{"capabilities", "dockerd-20.10", docker, func(ctx context.Context, v Volume) error { _, err := v.Scope(ctx); return err }, "VolumeDriver.Capabilities"},
		{"remove", "dockerd-20.10", docker, func(ctx context.Context, v Volume) error { return v.Remove(ctx, "v1") }, "VolumeDriver.Remove"},

		{"activate", "podman-4.3", podman, func(ctx context.Context, v Volume) error { _, err := v.c.Activate(ctx); return err }, "Plugin.Activate"},
		{"create", "podman-4.3", podman, create(size), "VolumeDriver.Create"},
		{"create without options", "podman-4.3", podman, func(ctx context.Context, v Volume) error { return v.Create(ctx, "v2", nil) }, "VolumeDriver.Create"},
		{"get", "podman-4.3", podman, func(ctx context.Context, v Volume) error { _, err := v.Get(ctx, "v1"); return err }, "VolumeDriver.Get"},
		{"list", "podman-4.3", podman, func(ctx context.Context, v Volume) error { _, err := v.List(ctx); return err }, "VolumeDriver.List"},
		{"mount", "podman-4.3", podman, func(ctx context.Context, v Volume) error { _, err := v.Mount(ctx, "v1", PodmanMountID); return err }, "VolumeDriver.Mount"},
		{"unmount", "podman-4.3", podman, func(ctx context.Context, v Volume) error { return v.Unmount(ctx, "v1", id) }, "VolumeDriver.Unmount"},
		{"remove", "podman-4.3", podman, func(ctx context.Context, v Volume) error { return v.Remove(ctx, "v1") }, "VolumeDriver.Remove"},
	}
	for _, tt := range tests {
		t.Run(tt.file+" "+tt.name, func(t *testing.T) {
			archive, err := os.ReadFile(filepath.Join("..", "internal", "wire", "testdata", tt.file, "volume.txtar"))
			if err != nil {
				t.Fatal(err)
			}
			got := sent(t, tt.opts, tt.call)
			if tt.opts.Engine == Docker {
				// This engine, of Debian, has no host. Those since 23.0.7 name the one that we do.
				got = strings.Replace(got, "Host: plugin.moby.localhost\r\n", "Host: \r\n", 1)
			}
			var closest string
			for _, m := range captured.FindAllSubmatch(archive, -1) {
				if string(m[2]) != tt.method {
					continue
				}
				want := strings.TrimSuffix(string(m[1]), "\n")
				if want == strings.TrimSuffix(got, "\n") {
					return
				}
				closest = want
			}
			t.Errorf("no request of the engine is like ours (-engine +ours):\n%s", cmp.Diff(closest, got))
		})
	}
}

// sent returns the request of one call.
func sent(t *testing.T, o Options, call func(context.Context, Volume) error) string {
	t.Helper()
	here, there := net.Pipe()
	o.Dial = func(context.Context, string, string) (net.Conn, error) { return here, nil }
	raw := make(chan string, 1)
	go func() {
		defer there.Close()
		var b bytes.Buffer
		r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(there, &b)))
		if err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		raw <- b.String()
		_, _ = io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Length: 22\r\nConnection: close\r\n\r\n{\"Volume\":{\"Name\":\"\"}}")
	}()
	c, err := New(Endpoint{Name: "x", Addr: "unix:///x.sock"}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := call(t.Context(), c.Volume()); err != nil {
		t.Error(err)
	}
	return <-raw
}
