package runtime

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestMobyfs runs the example of the SDK as a managed plugin and calls it as an engine does, over its restart.
func TestMobyfs(t *testing.T) {
	l := newLab(t)
	r := l.open(t)
	p := l.plugin(t, "acme/mobyfs:latest")
	noErr(t, os.Remove(p.Rootfs+"/plugin"))
	mobyfs, err := theMobyfs()
	noErr(t, err)
	link(t, mobyfs, p.Rootfs+"/mobyfs")
	p.Config = plugin.Config{
		Entrypoint: []string{"/mobyfs"}, PropagatedMount: "/var/lib/mobyfs", Interface: plugin.Interface{Socket: "mobyfs.sock"},
	}
	p.Settings.Args = []string{"start"}
	noErr(t, r.Start(t.Context(), p))
	c, err := client.New(client.Endpoint{Name: "mobyfs", Addr: "unix:///any.sock"}, client.Options{
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.Dial(ctx, p.ID) },
	})
	noErr(t, err)
	defer c.Close()
	noErr(t, c.Volume().Create(t.Context(), "data", nil))
	at, err := c.Volume().Mount(t.Context(), "data", "id")
	noErr(t, err)
	if at != "/var/lib/mobyfs/data" {
		t.Errorf("it is mounted on %q", at)
	}
	noErr(t, os.WriteFile(p.Propagated+"/data/hello", []byte("bye"), 0o600))
	noErr(t, killPid(r.State(p.ID).Pid))
	until(t, "its end", func() bool { return r.State(p.ID).Last != nil })
	if v, err := c.Volume().Get(t.Context(), "data"); err != nil || v.Name != "data" {
		t.Errorf("after a restart it has %+v, %v", v, err)
	}
	if kinds, err := c.Activate(t.Context()); err != nil || len(kinds) != 1 {
		t.Errorf("its kinds are %q, %v", kinds, err)
	}
	noErr(t, r.Stop(t.Context(), p.ID, 0))
	if data, err := os.ReadFile(p.Propagated + "/data/hello"); err != nil || string(data) != "bye" {
		t.Errorf("its files: %q, %v", data, err)
	}
	if _, err := c.Volume().Get(t.Context(), "data"); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("when it is stopped: %v", err)
	}
	l.clean(t)
}
