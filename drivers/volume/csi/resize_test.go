package csi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

func TestResize(t *testing.T) {
	for name, tt := range map[string]struct {
		change           func(*csitest.Options)
		mounted          error // of a resize while it is mounted
		unmounted        error
		storage, hostToo int // calls in the end
	}{
		"online":         {func(*csitest.Options) {}, nil, nil, 2, 2},
		"offline":        {func(o *csitest.Options) { o.ExpandOnline = false }, errdefs.ErrInUse, nil, 1, 1},
		"storage_alone":  {func(o *csitest.Options) { o.NodeExpand = false }, nil, nil, 2, 0},
		"host_alone":     {func(o *csitest.Options) { o.ExpandOnline, o.ExpandOffline = false, false }, nil, nil, 0, 2},
		"without_either": {func(o *csitest.Options) { o.ExpandOnline, o.ExpandOffline, o.NodeExpand = false, false, false }, errdefs.ErrUnsupported, errdefs.ErrUnsupported, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := csitest.All()
			tt.change(&o)
			h := newHost(t, o)
			d := h.open(t)
			must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m"}))
			wantClass(t, d.Resize(t.Context(), "a", 16<<20), errdefs.ErrInvalid, "size 16m: below the 32m that it has")
			h.mount(t, d, "a")
			size := int64(32 << 20)
			for _, step := range []struct {
				size int64
				want error
			}{{64 << 20, tt.mounted}, {128 << 20, tt.unmounted}} {
				err := d.Resize(t.Context(), "a", step.size)
				if !errors.Is(err, step.want) {
					t.Errorf("Resize to %d: %v, want %v", step.size, err, step.want)
				}
				if err == nil {
					size = step.size
					must(t, d.Resize(t.Context(), "a", size)) // once more changes nothing
				}
				must(t, d.Unmount(t.Context(), "a", h.mnt("a")))
			}
			h.mount(t, d, "a") // and what this host has to do is done
			r := h.record(t, d, "a")
			if r.Capacity != size || r.GrowNode || r.Grow != 0 {
				t.Errorf("capacity %d, want %d; %+v", r.Capacity, size, r)
			}
			calls := h.mock.Calls()
			if calls[callGrow] != tt.storage || calls[callGrowNode] != tt.hostToo {
				t.Errorf("%d and %d calls, want %d and %d", calls[callGrow], calls[callGrowNode], tt.storage, tt.hostToo)
			}
			must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
			h.nothingLeft(t)
		})
	}
}

// What grows on a host alone is mounted for it, and grows with the next mount where that was cut off. Where it cannot, it has
// the size that it had.
func TestResizeOnTheHostAlone(t *testing.T) {
	o := csitest.All()
	o.ExpandOnline, o.ExpandOffline, o.Bytes = false, false, 512<<20
	h := newHost(t, o)
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m"}))
	wantClass(t, d.Resize(t.Context(), "a", 1<<30), errdefs.ErrInvalid, "it cannot grow to that size")
	if r := h.record(t, d, "a"); r.Capacity != 32<<20 || r.GrowNode {
		t.Errorf("after a refusal: %+v", r)
	}
	must(t, d.Resize(t.Context(), "a", 64<<20))
	once(t, "it goes down again", func() bool { return len(h.mock.Attached(h.record(t, d, "a").ID)) == 0 })
	if v := h.mock.Volumes(); v[0].Size != 64<<20 || h.record(t, d, "a").Capacity != 64<<20 {
		t.Errorf("size %d, capacity %d", v[0].Size, h.record(t, d, "a").Capacity)
	}
	h.mock.Faults.Set(callGrowNode, csitest.Before, csitest.Code(codes.Internal), quick.unsure+1)
	if err := d.Resize(t.Context(), "a", 128<<20); err == nil {
		t.Error("no error")
	}
	if r := h.record(t, d, "a"); r.Capacity != 64<<20 || r.Grow != 128<<20 {
		t.Errorf("after it was cut off: %+v", r)
	}
	must(t, d.Close())
	d = h.open(t)
	h.mount(t, d, "a")
	if r := h.record(t, d, "a"); r.Capacity != 128<<20 || r.GrowNode || h.mock.Volumes()[0].Size != 128<<20 {
		t.Errorf("after the next mount: %+v", r)
	}
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
	h.nothingLeft(t)
}

// ext4 is grown only by who has the right to: else the volume could not be mounted any more.
func TestResizeWithoutTheRight(t *testing.T) {
	h := newHost(t, csitest.All())
	if has, known := conn.Capable(os.Getpid(), unix.CAP_SYS_RESOURCE); has || !known {
		t.Skip("deviates: this process may grow ext4")
	}
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m", "fs": "ext4"}))
	v, _ := d.store.find("a")
	r, _ := d.store.see(v)
	r.SeenFS = "ext4" // as of a disk; the volumes of these tests are directories
	must(t, d.store.save(v, r))
	wantClass(t, d.Resize(t.Context(), "a", 64<<20), errdefs.ErrDenied, "lacks the capability CAP_SYS_RESOURCE")
	if n := h.mock.Calls()[callGrow]; n != 0 {
		t.Error("the storage was asked")
	}
	r.SeenFS = "xfs"
	must(t, d.store.save(v, r))
	must(t, d.Resize(t.Context(), "a", 64<<20))
	must(t, d.Remove(t.Context(), "a"))
}

func TestUsage(t *testing.T) {
	h := newHost(t, csitest.All())
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m"}))
	if u, err := d.Usage(t.Context(), "a"); err != nil || u != (volume.Usage{Used: volume.Unknown, Limit: 32 << 20}) {
		t.Errorf("not mounted: %+v, %v", u, err)
	}
	must(t, os.WriteFile(filepath.Join(h.mount(t, d, "a"), "f"), make([]byte, 3<<20), 0o600))
	if u, err := d.Usage(t.Context(), "a"); err != nil || u.Used < 3<<20 || u.Used > 4<<20 || u.Limit != 32<<20 {
		t.Errorf("mounted: %+v, %v", u, err)
	}
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
}

// What is told of the file system below is not taken for the volume's.
func TestUsageOfTheWholeStorage(t *testing.T) {
	o := csitest.All()
	o.Stats = false
	h := newHost(t, o)
	d := h.open(t)
	must(t, d.Create(t.Context(), "a", map[string]string{"size": "32m"}))
	h.mount(t, d, "a")
	_, err := d.Usage(t.Context(), "a")
	wantClass(t, err, errdefs.ErrUnsupported, "its size is not enforced")
	must(t, errors.Join(d.Unmount(t.Context(), "a", h.mnt("a")), d.Remove(t.Context(), "a")))
}
