package csi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// beside is another host, with the same storage.
func (h *host) beside(t *testing.T, node string) *host {
	t.Helper()
	o := &host{t: t, dir: t.TempDir(), mock: h.mock.Beside(t, node), c: h.c}
	o.c.Endpoint, o.c.Controller = o.mock.Endpoint, o.mock.Controller
	return o
}

// A volume follows its name to another host, and is taken from a dead one by force alone.
func TestTakeOver(t *testing.T) {
	for _, list := range []bool{true, false} { // whether the CSI driver tells who has a volume
		o := csitest.All()
		o.List = list
		one := newHost(t, o)
		two := one.beside(t, "node-2")
		a, b := one.open(t), two.open(t)
		must(t, a.Create(t.Context(), "db", nil))
		must(t, os.WriteFile(filepath.Join(one.mount(t, a, "db"), "f"), []byte("data"), 0o600))
		must(t, b.Create(t.Context(), "db", nil))
		id := two.record(t, b, "db").ID
		if want := one.record(t, a, "db").ID; id != want {
			t.Fatalf("the second host has made %s, and not found %s", id, want)
		}
		_, err := b.Mount(t.Context(), "db", two.mnt("db"))
		wantClass(t, err, errdefs.ErrInUse, "node-1")
		wantClass(t, b.Attach(t.Context(), "db", false), errdefs.ErrInUse, "node-1")
		wantClass(t, b.Remove(t.Context(), "db"), errdefs.ErrInUse, "")
		// The first host dies, and what it had mounted with it.
		must(t, a.Close())
		must(t, unbind(one.mnt("db"), false))
		one.mock.Reboot()
		one.mock.Kill()
		must(t, b.Attach(t.Context(), "db", true))
		if at := two.mock.Attached(id); len(at) != 1 || at[0] != "node-2" {
			t.Errorf("attached to %q", at)
		}
		if got, err := os.ReadFile(filepath.Join(two.mount(t, b, "db"), "f")); string(got) != "data" {
			t.Errorf("data: %q, %v", got, err)
		}
		must(t, errors.Join(b.Unmount(t.Context(), "db", two.mnt("db")), b.Remove(t.Context(), "db")))
		two.nothingLeft(t)
	}
}

// A host that lets go in time is waited for.
func TestMountWaitsForAnotherHost(t *testing.T) {
	one := newHost(t, csitest.All(), func(c *config) { c.Detach, c.Wait = 300*time.Millisecond, 10*time.Second })
	two := one.beside(t, "node-2")
	a, b := one.open(t), two.open(t)
	must(t, a.Create(t.Context(), "db", nil))
	must(t, b.Create(t.Context(), "db", nil))
	one.mount(t, a, "db")
	must(t, a.Unmount(t.Context(), "db", one.mnt("db"))) // it lingers
	two.mount(t, b, "db")
	must(t, errors.Join(b.Unmount(t.Context(), "db", two.mnt("db")), b.Remove(t.Context(), "db")))
	two.nothingLeft(t)
}

// A volume in another zone is refused before anything is done.
func TestOtherZone(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	for name, opts := range map[string]map[string]string{"b": {"zone": "b"}, "c": {"topology.csitest/zone": "c"}, "a": {"zone": "a"}, "here": nil} {
		must(t, d.Create(t.Context(), name, opts))
		_, err := d.Mount(t.Context(), name, h.mnt(name))
		if name == "a" || name == "here" {
			must(t, err)
			must(t, d.Unmount(t.Context(), name, h.mnt(name)))
		} else {
			wantClass(t, err, errdefs.ErrInvalid, "the volume is in zone "+name+", and this host in zone a")
		}
		must(t, d.Remove(t.Context(), name))
	}
	if n := h.mock.Calls()[callAttach]; n != 2 {
		t.Errorf("attached %d times", n)
	}
	h.nothingLeft(t)
}

// What was there before Remora is used, and never deleted.
func TestVolumesThatAreThere(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	made, err := d.conn.Controller().CreateVolume(t.Context(), &spec.CreateVolumeRequest{
		Name: "theirs", VolumeCapabilities: []*spec.VolumeCapability{capability{Access: "SINGLE_NODE_MULTI_WRITER"}.spec()},
	})
	must(t, err)
	id := made.GetVolume().GetVolumeId()
	must(t, os.WriteFile(filepath.Join(h.mock.Data(id), "f"), []byte("theirs"), 0o600))
	given := map[string]string{"volume-id": id}
	for k, v := range made.GetVolume().GetVolumeContext() {
		given["context."+k] = v
	}
	wantClass(t, d.Create(t.Context(), "s", map[string]string{"volume_id": "no-such"}), errdefs.ErrInvalid, "no-such")
	given["access"] = "rw-many"
	wantClass(t, d.Create(t.Context(), "s", given), errdefs.ErrInvalid, "does not confirm")
	delete(given, "access")
	for name, opts := range map[string]map[string]string{"static": given, "theirs": {"exact_name": "true", "size": "0"}} {
		must(t, d.Create(t.Context(), name, opts))
		must(t, d.Create(t.Context(), name, opts))
		if name == "static" {
			wantClass(t, d.Create(t.Context(), "again", given), errdefs.ErrExists, `is volume "static" already`)
		}
		if got, err := os.ReadFile(filepath.Join(h.mount(t, d, name), "f")); string(got) != "theirs" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		must(t, d.Unmount(t.Context(), name, h.mnt(name)))
		must(t, d.CreateSnapshot(t.Context(), name, "s", nil))
		wantClass(t, d.Rollback(t.Context(), name, "s"), errdefs.ErrUnsupported, "becomes another volume")
		must(t, d.Remove(t.Context(), name))
	}
	if n := h.mock.Calls()[callDelete]; n != 0 || len(h.mock.Volumes()) != 1 || len(h.mock.Snapshots()) != 0 {
		t.Errorf("%d volumes were deleted; %q", n, h.mock.Left())
	}
}

// What is retained is found again by its name.
func TestRetain(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	keep := map[string]string{"reclaim": "retain"}
	must(t, d.Create(t.Context(), "a", keep))
	must(t, os.WriteFile(filepath.Join(h.mount(t, d, "a"), "f"), []byte("kept"), 0o600))
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
	must(t, d.Create(t.Context(), "a", nil))
	if got, err := os.ReadFile(filepath.Join(h.mount(t, d, "a"), "f")); string(got) != "kept" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
	h.nothingLeft(t)
}

// The name of one in the trash is not given to another: it would be the same volume.
func TestTrashKeepsItsName(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", nil))
	must(t, d.Trash(t.Context(), "a"))
	must(t, d.Create(t.Context(), "a", nil))
	if n := len(h.mock.Volumes()); n != 2 {
		t.Errorf("%d volumes", n)
	}
	all, err := d.Trashed(t.Context())
	must(t, err)
	must(t, errors.Join(d.Purge(t.Context(), all[0].ID), d.Remove(t.Context(), "a")))
	h.nothingLeft(t)
}
