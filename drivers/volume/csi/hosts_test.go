package csi

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// beside is another host, with a CSI driver of its own and the same storage.
func (h *host) beside(t *testing.T, node string) *host {
	t.Helper()
	mock := h.mock.Beside(t, node)
	o := &host{t: t, dir: t.TempDir(), mock: mock, c: testConfig(mock.Endpoint)}
	o.unmounted(t)
	return o
}

// TestTwoHosts has a volume follow its containers: it is refused as long as another host has it, comes when that lets it go,
// and is taken from one that is gone when it is asked for by force. The storage has one volume, at one host.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	one := newHost(t, csitest.All(), func(c *config) { c.Wait = 50 * time.Millisecond })
	two := one.beside(t, "node-2")
	two.c.Wait = 50 * time.Millisecond
	ctx, first, second := t.Context(), one.open(t), two.open(t)
	for _, d := range []*driver{first, second} {
		if err := d.Create(ctx, "a", map[string]string{"size": "32m"}); err != nil {
			t.Fatal(err)
		}
	}
	all := one.mock.Volumes()
	if len(all) != 1 {
		t.Fatalf("%d volumes, not one", len(all))
	}
	at := func(want string) {
		t.Helper()
		if nodes := one.mock.Attached(all[0].ID); len(nodes) != 1 || nodes[0] != want {
			t.Errorf("attached to %q, not to %s", nodes, want)
		}
	}
	if _, err := first.Mount(ctx, "a", one.mnt("a")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(one.mnt("a")+"/f", []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Mount(ctx, "a", two.mnt("a")); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("mount at two hosts: %v", err)
	}
	if err := second.Remove(ctx, "a"); err == nil {
		t.Error("removed while another host has it")
	}
	at("node-1")
	if err := first.Unmount(ctx, "a", one.mnt("a")); err != nil {
		t.Fatal(err)
	}
	within(t, func() error {
		_, err := second.Mount(ctx, "a", two.mnt("a"))
		return err
	})
	if got, err := os.ReadFile(two.mnt("a") + "/f"); err != nil || string(got) != "data" {
		t.Errorf("%q, %v at the second host", got, err)
	}
	at("node-2")
	// The second host ends: its mounts and its daemon are gone, and it says nothing to the storage.
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := unbind(two.mnt("a"), true); err != nil {
		t.Fatal(err)
	}
	two.mock.Reboot()
	if _, err := first.Mount(ctx, "a", one.mnt("a")); !errors.Is(err, errdefs.ErrInUse) {
		t.Errorf("mount of what a host has that is gone: %v", err)
	}
	at("node-2")
	if err := first.Attach(ctx, "a", true); err != nil {
		t.Fatal(err)
	}
	at("node-1")
	if _, err := first.Mount(ctx, "a", one.mnt("a")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(one.mnt("a") + "/f"); err != nil || string(got) != "data" {
		t.Errorf("%q, %v at the first host again", got, err)
	}
	if err := errors.Join(first.Unmount(ctx, "a", one.mnt("a")), first.Remove(ctx, "a")); err != nil {
		t.Fatal(err)
	}
	one.nothingLeft(t)
}
