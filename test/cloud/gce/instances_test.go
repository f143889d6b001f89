package gce

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/test/cloud/fake/faketest"
)

func TestDataFollowsTheDisk(t *testing.T) {
	w := start(t, Config{Attach: 2 * time.Second, DeviceLag: time.Second})
	a, b := w.host("a"), w.host("b")
	w.create(&compute.Disk{Name: "data", SizeGb: 10})
	op, err := w.attach("a", "data", "mine").Do()
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.attach("b", "data", "mine").Do()
	refused(t, "attach while another does", err, 400, "resourceNotReady", "disks/data' is not ready")
	_, err = w.api.Disks.Delete(project, zone, "data").Do()
	refused(t, "delete meanwhile", err, 400, "resourceNotReady", "is not ready")
	w.clock.Advance(2 * time.Second)
	if got, err := w.api.ZoneOperations.Get(project, zone, op.Name).Do(); err != nil || got.Status != "DONE" {
		t.Errorf("operation %v %v", got, err)
	}
	if _, err := os.Lstat(link(a, "mine")); !os.IsNotExist(err) {
		t.Errorf("the device is there at once: %v", err)
	}
	w.clock.Advance(time.Second)
	faketest.Write(t, link(a, "mine"), "from a")
	if other, err := filepath.EvalSymlinks(filepath.Join(a.Dev(), "disk/by-id/scsi-0Google_PersistentDisk_mine")); err != nil || faketest.Read(t, other, 6) != "from a" {
		t.Errorf("by its other name: %v", err)
	}
	_, err = w.attach("b", "data", "mine").Do()
	refused(t, "attach to a second", err, 400, "resourceInUseByAnotherResource", "already being used by 'projects/fake-project/zones/us-central1-a/instances/a'")
	_, err = w.attach("a", "data", "again").Do()
	refused(t, "attach twice", err, 400, "resourceInUseByAnotherResource", "already being used by")
	_, err = w.api.Disks.Delete(project, zone, "data").Do()
	refused(t, "delete while attached", err, 400, "resourceInUseByAnotherResource", "instances/a")
	if d := w.get("data"); len(d.Users) != 1 || last(d.Users[0]) != "a" || d.LastAttachTimestamp == "" {
		t.Errorf("disk %+v", d)
	}
	i, err := w.api.Instances.Get(project, zone, "a").Do()
	if err != nil || len(i.Disks) != 2 || !i.Disks[0].Boot || i.Disks[1].DeviceName != "mine" || last(i.Disks[1].Source) != "data" {
		t.Errorf("instance %+v %v", i, err)
	}
	_, err = w.api.Instances.DetachDisk(project, zone, "a", "data").Do()
	refused(t, "detach by the disk's name", err, 400, "invalid", "No attached disk found with device name 'data'")
	w.end(w.api.Instances.DetachDisk(project, zone, "a", "mine").Do())
	if d := w.get("data"); len(d.Users) != 0 || d.LastDetachTimestamp == "" || len(a.Names()) != 0 {
		t.Errorf("disk %+v, host %v", d, a.Names())
	}
	w.end(w.attach("b", "data", "").Do())
	w.clock.Advance(time.Second)
	if got := faketest.Read(t, link(b, "persistent-disk-1"), 6); got != "from a" {
		t.Errorf("b reads %q", got)
	}
}

func TestWhatCannotBeAttached(t *testing.T) {
	w := start(t, Config{PerInstance: 2})
	w.add(zone, "a", nil)
	w.add(zoneB, "far", nil)
	for i := range 4 {
		w.create(&compute.Disk{Name: fmt.Sprint("d", i), SizeGb: 10})
	}
	w.end(w.attach("a", "d0", "x").Do())
	_, err := w.attach("a", "d1", "x").Do()
	refused(t, "a device name that is taken", err, 400, "invalid", "in use already")
	_, err = w.attach("a", "d1", "Not_A_Name").Do()
	refused(t, "a wrong device name", err, 400, "invalid", "resource.deviceName")
	_, err = w.attach("none", "d1", "").Do()
	refused(t, "no such instance", err, 404, "notFound", "instances/none")
	_, err = w.attach("a", "none", "").Do()
	refused(t, "no such disk", err, 404, "notFound", "disks/none")
	_, err = w.api.Instances.AttachDisk(project, zoneB, "far", &compute.AttachedDisk{Source: "zones/" + zone + "/disks/d1"}).Do()
	refused(t, "another zone", err, 404, "notFound", "disks/d1")
	_, err = w.api.Instances.AttachDisk(project, zone, "a", &compute.AttachedDisk{Source: "zones/" + zone + "/disks/d1", ForceAttach: true}).Do()
	refused(t, "by force", err, 400, "invalid", "Force attach")
	w.end(w.attach("a", "d1", "").Do())
	_, err = w.attach("a", "d2", "").Do()
	refused(t, "one too many", err, 400, "limitExceeded", "maximum_persistent_disks")
}

func TestReadersShare(t *testing.T) {
	w := start(t, Config{})
	w.create(&compute.Disk{Name: "data", SizeGb: 10})
	w.add(zone, "c", nil)
	for _, name := range []string{"a", "b"} {
		w.add(zone, name, nil)
		w.end(w.api.Instances.AttachDisk(project, zone, name, &compute.AttachedDisk{Source: "zones/" + zone + "/disks/data", Mode: "READ_ONLY"}).Do())
	}
	if d := w.get("data"); len(d.Users) != 2 {
		t.Errorf("users %v", d.Users)
	}
	_, err := w.attach("c", "data", "").Do()
	refused(t, "to write", err, 400, "resourceInUseByAnotherResource", "already being used")
}

func TestErrorsThatComeLate(t *testing.T) {
	w := start(t, Config{LateErrors: true})
	w.add(zone, "a", nil)
	w.add(zone, "b", nil)
	w.create(&compute.Disk{Name: "data", SizeGb: 10})
	w.end(w.attach("a", "data", "").Do())
	op := w.ended(w.attach("b", "data", "").Do())
	if op.Error == nil || op.Error.Errors[0].Code != "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE" || op.HttpErrorStatusCode != 400 || op.HttpErrorMessage != "BAD REQUEST" {
		t.Errorf("operation %+v", op)
	}
	if d := w.get("data"); len(d.Users) != 1 || last(d.Users[0]) != "a" {
		t.Errorf("users %v", d.Users)
	}
}

func TestDetachOfAMountedDisk(t *testing.T) {
	for _, fails := range []bool{true, false} {
		w := start(t, Config{BusyFails: fails})
		a := w.host("a")
		w.create(&compute.Disk{Name: "data", SizeGb: 10})
		w.end(w.attach("a", "data", "data").Do())
		at := faketest.Mounted(t, link(a, "data"))
		op := w.ended(w.api.Instances.DetachDisk(project, zone, "a", "data").Do())
		if fails {
			if op.Error == nil || op.Error.Errors[0].Code != "TIMEOUT" || len(w.get("data").Users) != 1 {
				t.Errorf("detach: %+v, users %v", op, w.get("data").Users)
			}
			if err := unix.Unmount(at, 0); err != nil {
				t.Error(err)
			}
			w.end(w.api.Instances.DetachDisk(project, zone, "a", "data").Do())
			continue
		}
		if op.Error != nil || len(w.get("data").Users) != 0 {
			t.Errorf("detach: %+v, users %v", op, w.get("data").Users)
		}
		b := w.host("b")
		w.end(w.attach("b", "data", "data").Do())
		faketest.Lost(t, at, link(b, "data"))
	}
}

func TestResize(t *testing.T) {
	w := start(t, Config{})
	a := w.host("a")
	w.create(&compute.Disk{Name: "data", SizeGb: 10})
	w.end(w.attach("a", "data", "data").Do())
	for _, size := range []int64{9, 10, 65537} {
		_, err := w.api.Disks.Resize(project, zone, "data", &compute.DisksResizeRequest{SizeGb: size}).Do()
		refused(t, fmt.Sprint("to ", size), err, 400, "invalid", "sizeGb")
	}
	w.end(w.api.Disks.Resize(project, zone, "data", &compute.DisksResizeRequest{SizeGb: 20}).Do())
	f, err := os.Open(link(a, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end != 20*gib || w.get("data").SizeGb != 20 {
		t.Errorf("the device has %d bytes (%v), the disk %d GB", end, err, w.get("data").SizeGb)
	}
}

func TestInstancesComeAndGo(t *testing.T) {
	w := start(t, Config{Other: time.Second, Gone: 2 * time.Minute})
	a := w.host("a")
	w.add(zone, "b", nil)
	w.create(&compute.Disk{Name: "data", SizeGb: 10})
	w.end(w.attach("a", "data", "data").Do())
	faketest.Write(t, link(a, "data"), "kept")
	status := func() string {
		i, err := w.api.Instances.Get(project, zone, "a").Do()
		if err != nil {
			return err.Error()
		}
		return i.Status
	}
	op, err := w.api.Instances.Stop(project, zone, "a").Do()
	if got := status(); got != "STOPPING" {
		t.Errorf("status %s", got)
	}
	w.end(op, err)
	if got := status(); got != "TERMINATED" || len(a.Names()) != 0 || len(w.get("data").Users) != 1 {
		t.Errorf("stopped: %s, %v, users %v", got, a.Names(), w.get("data").Users)
	}
	w.end(w.api.Instances.Start(project, zone, "a").Do())
	if got := status(); got != "RUNNING" || faketest.Read(t, link(a, "data"), 4) != "kept" {
		t.Errorf("started: %s", got)
	}
	if err := w.Preempt(zone, "a"); err != nil || status() != "TERMINATED" || len(a.Names()) != 0 {
		t.Errorf("preempted: %v, %s, %v", err, status(), a.Names())
	}
	if list, err := w.api.Instances.List(project, zone).Filter("status = TERMINATED").Do(); err != nil || len(list.Items) != 1 {
		t.Errorf("list: %v %v", list, err)
	}
	w.end(w.api.Instances.Delete(project, zone, "a").Do())
	if got := status(); !strings.Contains(got, "404") {
		t.Errorf("deleted: %s", got)
	}
	_, err = w.attach("b", "data", "").Do()
	refused(t, "before the dead lets go", err, 400, "resourceInUseByAnotherResource", "instances/a")
	w.clock.Advance(2 * time.Minute)
	w.end(w.attach("b", "data", "").Do())
}

func TestSnapshots(t *testing.T) {
	w := start(t, Config{Snapshot: 2 * time.Second})
	a := w.host("a")
	w.create(&compute.Disk{Name: "data", SizeGb: 10, Type: "diskTypes/pd-ssd"})
	w.end(w.attach("a", "data", "data").Do())
	faketest.Write(t, link(a, "data"), "old")
	op, err := w.api.Disks.CreateSnapshot(project, zone, "data", &compute.Snapshot{Name: "s1", Labels: map[string]string{"x": "1"}}).Do()
	if err != nil {
		t.Fatal(err)
	}
	faketest.Write(t, link(a, "data"), "new")
	var states []string
	for range 3 {
		s, err := w.api.Snapshots.Get(project, "s1").Do()
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, s.Status)
		if s.Status != "READY" {
			_, err := w.api.Disks.Insert(project, zone, &compute.Disk{Name: "early", SourceSnapshot: "global/snapshots/s1"}).Do()
			refused(t, "a disk of it", err, 400, "resourceNotReady", "snapshots/s1' is not ready")
		}
		w.clock.Advance(time.Second)
	}
	if !slices.Equal(states, []string{"CREATING", "UPLOADING", "READY"}) {
		t.Errorf("states %v", states)
	}
	w.end(op, nil)
	_, err = w.api.Disks.CreateSnapshot(project, zone, "data", &compute.Snapshot{Name: "s1"}).Do()
	refused(t, "the same name", err, 409, "alreadyExists", "snapshots/s1")
	s, err := w.api.Snapshots.Get(project, "s1").Do()
	if err != nil || s.DiskSizeGb != 10 || s.StorageBytes == 0 || last(s.SourceDisk) != "data" || !slices.Equal(s.StorageLocations, []string{"us"}) {
		t.Errorf("snapshot %+v %v", s, err)
	}
	_, err = w.api.Disks.Insert(project, zone, &compute.Disk{Name: "small", SizeGb: 10, SourceSnapshot: "global/snapshots/none"}).Do()
	refused(t, "of none", err, 404, "notFound", "snapshots/none")

	// Another zone gets a copy that is larger.
	w.end(w.api.Disks.Insert(project, zoneB, &compute.Disk{Name: "copy", SizeGb: 12, SourceSnapshot: s.SelfLink}).Do())
	if got := faketest.Read(t, w.files.Path(w.disks[zoneB+"/copy"].file()), 3); got != "old" {
		t.Errorf("the copy has %q", got)
	}
	clone := w.create(&compute.Disk{Name: "clone", SourceDisk: "zones/" + zone + "/disks/data"})
	if got := faketest.Read(t, w.files.Path(w.disks[zone+"/clone"].file()), 3); got != "new" || last(clone.Type) != "pd-ssd" || clone.SizeGb != 10 {
		t.Errorf("the clone has %q: %+v", got, clone)
	}
	_, err = w.api.Disks.Insert(project, zoneB, &compute.Disk{Name: "far", SourceDisk: "zones/" + zone + "/disks/data"}).Do()
	refused(t, "clone to another zone", err, 404, "notFound", "disks/data")

	w.end(w.api.Snapshots.SetLabels(project, "s1", &compute.GlobalSetLabelsRequest{LabelFingerprint: s.LabelFingerprint, Labels: map[string]string{"y": "2"}}).Do())
	w.end(w.api.Snapshots.Insert(project, &compute.Snapshot{Name: "s2", SourceDisk: "projects/" + project + "/zones/" + zone + "/disks/data"}).Do())
	list, err := w.api.Snapshots.List(project).Filter("labels.y = 2").Do()
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "s1" {
		t.Errorf("list %v %v", list, err)
	}
	w.end(w.api.Snapshots.Delete(project, "s1").Do())
	_, err = w.api.Snapshots.Get(project, "s1").Do()
	refused(t, "a deleted one", err, 404, "notFound", "snapshots/s1")
}
