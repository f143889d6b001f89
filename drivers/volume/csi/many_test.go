package csi

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/csi/csitest"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// hanging is a host with many volumes, whose CSI driver answers nobody.
func hanging(t testing.TB, n int) (*host, *volume.Handler) {
	t.Helper()
	h := newHost(t, csitest.All())
	d := h.open(t)
	for i := range n {
		r := record{
			Name: fmt.Sprintf("volume-%05d", i), Created: now(), Origin: created, CSIName: fmt.Sprint(i), ID: fmt.Sprintf("vol-%d", i), Lineage: fmt.Sprint(i),
			Capacity: 1 << 30, Phase: phaseCreated, Capability: capability{Access: "SINGLE_NODE_WRITER", FS: "ext4"},
			Topology: []map[string]string{{"csitest/zone": "a"}}, Options: map[string]string{"size": "1g"},
		}
		v := newVol()
		v.rec = r
		d.store.volumes[r.Name] = v
	}
	for _, rpc := range []string{"GetPluginInfo", "Probe", "ListVolumes", callCreate} {
		h.mock.Faults.Set(rpc, csitest.Before, csitest.Hang, -1)
	}
	handler, err := volume.NewHandler(t.Context(), d, volume.Options{MountRoot: h.dir + "/mounts", Refresh: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = handler.Close(context.WithoutCancel(t.Context())) })
	return h, handler
}

const many = 10000

// list is what "docker volume ls" does, and then an inspect of one.
func list(t testing.TB, h *volume.Handler) {
	t.Helper()
	n := 0
	for _, err := range h.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != many {
		t.Fatalf("%d volumes", n)
	}
	if _, err := h.Get(t.Context(), "volume-07777"); err != nil {
		t.Fatal(err)
	}
}

// TestListWhileTheDriverHangs: what is known is told at once.
func TestListWhileTheDriverHangs(t *testing.T) {
	_, handler := hanging(t, many)
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	busy.Go(func() { _ = handler.Create(ctx, "new", nil) })
	defer busy.Wait()
	defer cancel()
	took := make([]time.Duration, 200)
	for i := range took {
		began := time.Now()
		list(t, handler)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d volumes: p50 %s, p99 %s", many, took[len(took)/2], p99)
	if limit := 10 * time.Millisecond; p99 > limit && took[len(took)/2] > limit { // the half of them, on a machine that has much else to do
		t.Errorf("p99 %s", p99)
	}
	if _, err := handler.Get(t.Context(), "unknown"); err == nil || errdefs.Name(err) != "not-found" {
		t.Errorf("Get of an unknown volume: %v", err)
	}
}

func BenchmarkList10000(b *testing.B) {
	_, handler := hanging(b, many)
	for b.Loop() {
		list(b, handler)
	}
}

// BenchmarkVolumes is what the Handler asks for once in a minute.
func BenchmarkVolumes10000(b *testing.B) {
	_, handler := hanging(b, many)
	for b.Loop() {
		if err := handler.RefreshNow(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkThirty is thirty volumes at once, through their whole life: each metric is one of its parts.
func BenchmarkThirty(b *testing.B) {
	h := newHost(b, csitest.All(), func(c *config) { c.Detach = time.Hour })
	d := h.open(b)
	const n = 30
	parts := map[string]time.Duration{}
	for b.Loop() {
		for _, part := range []struct {
			name string
			do   func(name string) error
		}{
			{"create", func(name string) error { return d.Create(b.Context(), name, nil) }},
			{"mount", func(name string) error { _, err := d.Mount(b.Context(), name, h.mnt(name)); return err }},
			{"unmount", func(name string) error { return d.Unmount(b.Context(), name, h.mnt(name)) }},
			{"remove", func(name string) error { return d.Remove(b.Context(), name) }},
		} {
			began := time.Now()
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					if err := part.do(fmt.Sprintf("v%d", i)); err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
			parts[part.name] += time.Since(began)
		}
	}
	for name, took := range parts {
		b.ReportMetric(took.Seconds()*1000/float64(b.N), name+"-ms")
	}
}
