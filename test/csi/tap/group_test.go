package tap_test

import (
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/csitest"
)

// TestGroup: a group of snapshots and all that are in it are there until the group is deleted.
func TestGroup(t *testing.T) {
	c := newCaller(t)
	if _, err := c.group.GroupControllerGetCapabilities(c.ctx, &csi.GroupControllerGetCapabilitiesRequest{}); err != nil {
		t.Fatal(err)
	}
	if !c.tap.Facts().Group[csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT] {
		t.Errorf("known: %+v", c.tap.Facts())
	}
	other := c.create("w").GetVolumeId()
	answer, err := c.group.CreateVolumeGroupSnapshot(c.ctx, &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{c.id, other}})
	if err != nil {
		t.Fatal(err)
	}
	g := answer.GetGroupSnapshot()
	want := map[string]bool{"group " + g.GetGroupSnapshotId(): true, "volume " + c.id: true, "volume " + other: true}
	for _, s := range g.GetSnapshots() {
		want["snapshot "+s.GetSnapshotId()] = true
	}
	left := c.tap.Left()
	for _, one := range left {
		if !want[one] {
			t.Errorf("left is %s, which is not there", one)
		}
	}
	if len(left) != 5 || len(want) != 5 {
		t.Errorf("left: %v, want %v", left, want)
	}
	if _, err := c.group.DeleteVolumeGroupSnapshot(c.ctx, &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId()}); err != nil {
		t.Fatal(err)
	}
	if left := c.tap.Left(); len(left) != 2 {
		t.Errorf("left: %v, want the volumes", left)
	}
	if v := c.tap.Violations(); len(v) > 0 {
		t.Errorf("complaints: %v", v)
	}
}

// TestGroupHasItsVolumesAlone: a call for one of the volumes while they are kept together is noticed, and so is one
// while a volume is kept alone.
func TestGroupHasItsVolumesAlone(t *testing.T) {
	for _, rpc := range []string{"CreateVolumeGroupSnapshot", "CreateSnapshot"} {
		t.Run(rpc, func(t *testing.T) {
			c := newCaller(t)
			other := c.create("w").GetVolumeId()
			under, release := make(chan struct{}), make(chan struct{})
			c.mock.OnCall(func(called string, when csitest.When) {
				if called == rpc && when == csitest.Before {
					close(under)
					<-release
				}
			})
			for c.ready() != nil { // it was started again for that
				time.Sleep(10 * time.Millisecond)
			}
			done := make(chan error, 1)
			go func() {
				var err error
				if rpc == "CreateSnapshot" {
					_, err = c.controller.CreateSnapshot(c.ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: c.id})
				} else {
					_, err = c.group.CreateVolumeGroupSnapshot(c.ctx, &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{other, c.id}})
				}
				done <- err
			}()
			select {
			case <-under:
			case err := <-done:
				t.Fatalf("ended before it began: %v", err)
			}
			_ = c.attach() // which the driver refuses
			close(release)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if all, want := strings.Join(c.tap.Violations(), "\n"), "ControllerPublishVolume while "+rpc+" is in flight"; !strings.Contains(all, want) {
				t.Errorf("noticed: %q, want %q", all, want)
			}
		})
	}
}
