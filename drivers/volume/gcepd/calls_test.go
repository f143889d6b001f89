package gcepd

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/test/cloud/gce"
)

// counts are the calls that the server has had, by kind.
func (c *cloud) counts() map[string]int {
	all := map[string]int{}
	for kind, n := range c.Calls.Counts() {
		all[kind] = n.Calls
	}
	return all
}

// TestCalls counts, at the server, what each verb asks. A disk that is made is asked for until it
// is there, once more on a slow machine.
func TestCalls(t *testing.T) {
	testenv.Require(t, testenv.Loop)
	c := newCloud(t, gce.Config{Reads: -1, Writes: -1})
	d := c.daemon(t, zoneA)
	d.poll = 0 // as it is
	drv := d.driver(t)
	ctx, at := t.Context(), t.TempDir()
	if err := drv.(volume.Pinger).Ping(ctx); err != nil {
		t.Fatal(err)
	}
	unmount := func() error {
		if err := drv.Unmount(ctx, "data", at); err != nil {
			return err
		}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if !slices.ContainsFunc(drv.(volume.Worker).Jobs(), func(j volume.Job) bool { return !j.Ended }) && c.counts()["instances.detachDisk"] > 0 {
				break
			}
		}
		return nil
	}
	mount := func() error { _, err := drv.Mount(ctx, "data", at); return err }
	again := map[string]int{"disks.aggregatedList": 1, "instances.attachDisk": 1}
	for _, step := range []struct {
		what string
		most map[string]int
		do   func() error
	}{
		{"create", map[string]int{"disks.insert": 1, "disks.aggregatedList": 3, "metadata": 3}, func() error { return drv.Create(ctx, "data", nil) }},
		{"create again", map[string]int{"disks.aggregatedList": 1}, func() error { return drv.Create(ctx, "data", nil) }},
		{"first mount", map[string]int{"disks.aggregatedList": 1, "instances.attachDisk": 1, "disks.get": 1, "disks.setLabels": 2, "operations.wait": 2}, mount},
		{"unmount", map[string]int{"instances.detachDisk": 1}, unmount},
		{"mount", again, mount},
		{"list and inspect", nil, func() error {
			for _, err := range drv.Volumes(ctx) {
				if err != nil {
					return err
				}
			}
			_, err := drv.(volume.Inspector).Inspect(ctx, "data")
			return err
		}},
		{"unmount again", map[string]int{"instances.detachDisk": 1}, unmount},
		{"remove", map[string]int{"disks.delete": 1, "snapshots.list": 1}, func() error { return drv.Remove(ctx, "data") }},
	} {
		c.Calls.Reset()
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		got := c.counts()
		for kind, n := range got {
			if n > step.most[kind] {
				t.Errorf("%s: %s was asked %d times, want at most %d", step.what, kind, n, step.most[kind])
			}
		}
		t.Logf("%-17s %v", step.what, got)
	}
}

// needs are the permissions that requests need, as Google's reference says.
var needs = map[string][]string{
	"disks.insert":         {"compute.disks.create", "compute.disks.setLabels", "compute.snapshots.useReadOnly"},
	"disks.aggregatedList": {"compute.disks.list"},
	"disks.get":            {"compute.disks.get"},
	"disks.delete":         {"compute.disks.delete"},
	"disks.resize":         {"compute.disks.resize"},
	"disks.setLabels":      {"compute.disks.setLabels"},
	"disks.createSnapshot": {"compute.disks.createSnapshot", "compute.snapshots.create", "compute.snapshots.setLabels"},
	"snapshots.list":       {"compute.snapshots.list"},
	"snapshots.get":        {"compute.snapshots.get"},
	"snapshots.delete":     {"compute.snapshots.delete"},
	"instances.attachDisk": {"compute.instances.attachDisk", "compute.disks.use"},
	"instances.detachDisk": {"compute.instances.detachDisk", "compute.disks.use"},
	"instances.get":        {"compute.instances.get"},
	"operations.get":       {"compute.zoneOperations.get"},
	"operations.wait":      {"compute.zoneOperations.get"},
}

// TestPermissions: the role of the README allows what the driver asks for, and nothing else.
func TestPermissions(t *testing.T) {
	c := newCloud(t, quick())
	p := c.here(t)
	d := made(t, p, spec("1", "a"))
	self, err := p.Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Attach(t.Context(), d, self); err != nil {
		t.Fatal(err)
	}
	until(t, p, d.ID, func(d block.Disk) bool { return len(d.Holders) > 0 && d.Holders[0].State == block.Attached })
	tags := block.Tags{block.TagUUID: d.Tags[block.TagUUID], block.TagNamespace: "remora", block.TagName: "a"}
	sn, err := p.CreateSnapshot(t.Context(), d, tags)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.CreateSnapshot(t.Context(), d, tags); err != nil || again.ID != sn.ID {
		t.Errorf("a snapshot with the same token: %+v %v", again, err)
	}
	time.Sleep(100 * time.Millisecond)
	if again, err := p.CreateSnapshot(t.Context(), d, tags); err != nil || again.State != block.Ready || again.ID != sn.ID {
		t.Errorf("a snapshot that is there: %+v %v", again, err)
	}
	if all, err := p.Snapshots(t.Context(), block.Query{Namespace: "remora", Names: []string{"a"}}); err != nil || len(all) != 1 || all[0].Size != d.Size {
		t.Errorf("snapshots: %+v %v", all, err)
	}
	for what, err := range map[string]error{
		"resize": p.Resize(t.Context(), d, 20*gib), "tags": p.SetTags(t.Context(), d, block.Tags{"x": "y"}), "snapshot": p.DeleteSnapshot(t.Context(), sn),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	until(t, p, d.ID, func(d block.Disk) bool { return d.Size == 20*gib })
	if err := p.Resize(t.Context(), d, 20*gib); err != nil {
		t.Errorf("resize to the size that it has: %v", err)
	}
	if _, err := p.Gone(t.Context(), self.ID); err != nil {
		t.Error(err)
	}
	if err := p.Detach(t.Context(), d, self.ID, false); err != nil {
		t.Error(err)
	}
	until(t, p, d.ID, func(d block.Disk) bool { return len(d.Holders) == 0 })
	if err := p.Delete(t.Context(), d); err != nil {
		t.Error(err)
	}
	if _, err := p.Find(t.Context(), ""); err != nil {
		t.Error(err)
	}
	wanted := map[string]bool{}
	for kind := range c.counts() {
		if kind == "metadata" || kind == "oauth.token" {
			continue
		}
		if needs[kind] == nil {
			t.Errorf("%s was asked, and nobody knows which permission that needs", kind)
		}
		for _, permission := range needs[kind] {
			wanted[permission] = true
		}
	}
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var role []string
	for _, m := range regexp.MustCompile(`(?m)^- (compute\.\S+)$`).FindAllSubmatch(page, -1) {
		role = append(role, string(m[1]))
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(wanted)), role); diff != "" {
		t.Errorf("what was asked for, and what the role allows: %s", diff)
	}
}
