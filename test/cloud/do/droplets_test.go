package do

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/test/cloud/fake"
	"github.com/remora-plugins/remora/test/cloud/fake/faketest"
)

func TestDataFollowsTheVolume(t *testing.T) {
	w, ctx := start(t, Config{Attach: 2 * time.Second, DeviceLag: time.Second}), t.Context()
	one, two := w.host(1), w.host(2)
	v := w.create("data")
	if got := w.done(w.StorageActions.Attach(ctx, v.ID, 1)); got != "completed" {
		t.Fatalf("attach: %s", got)
	}
	faketest.Write(t, link(one, "data"), "from one")
	_, _, err := w.StorageActions.Attach(ctx, v.ID, 2)
	refused(t, "attach to a second", err, 422, godo.ErrVolumeAlreadyAttached)
	_, err = w.Storage.DeleteVolume(ctx, v.ID)
	refused(t, "delete while attached", err, 409, "attached to a Droplet cannot be deleted")
	if d, _, err := w.Droplets.Get(ctx, 1); err != nil || !slices.Equal(d.VolumeIDs, []string{v.ID}) {
		t.Errorf("droplet: %v %v", d, err)
	}
	_, _, err = w.StorageActions.DetachByDropletID(ctx, v.ID, 2)
	refused(t, "detach from the wrong one", err, 422, godo.ErrAttachmentNotFound)
	if got := w.done(w.StorageActions.DetachByDropletID(ctx, v.ID, 1)); got != "completed" {
		t.Fatalf("detach: %s", got)
	}
	if _, err := os.Lstat(link(one, "data")); !os.IsNotExist(err) {
		t.Errorf("the link of a detached volume: %v", err)
	}
	_, _, err = w.StorageActions.DetachByDropletID(ctx, v.ID, 1)
	refused(t, "detach twice", err, 422, godo.ErrAttachmentNotFound)
	if got := w.done(w.StorageActions.Attach(ctx, v.ID, 2)); got != "completed" {
		t.Fatalf("attach: %s", got)
	}
	if got := faketest.Read(t, link(two, "data"), 8); got != "from one" {
		t.Errorf("two reads %q", got)
	}
}

func TestOneActionAtATime(t *testing.T) {
	w, ctx := start(t, Config{Attach: 2 * time.Second, DeviceLag: time.Second}), t.Context()
	one := w.host(1)
	w.droplet(2, "nyc1", nil)
	v, other := w.create("data"), w.create("other")
	a, _, err := w.StorageActions.Attach(ctx, v.ID, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = w.StorageActions.Attach(ctx, other.ID, 1)
	refused(t, "the droplet is at it", err, 422, godo.ErrDropletPendingEvent)
	_, _, err = w.StorageActions.Attach(ctx, v.ID, 2)
	refused(t, "so is the volume", err, 409, "pending event")
	_, err = w.Storage.DeleteVolume(ctx, v.ID)
	refused(t, "delete", err, 409, "pending event")
	w.clock.Advance(2 * time.Second)
	if a, _, err = w.StorageActions.Get(ctx, v.ID, a.ID); err != nil || a.Status != "completed" || a.CompletedAt == nil {
		t.Errorf("after 2 s: %v %v", a, err)
	}
	if _, err := os.Lstat(link(one, "data")); !os.IsNotExist(err) {
		t.Errorf("the device is there at once: %v", err)
	}
	w.clock.Advance(time.Second)
	if _, err := os.Stat(link(one, "data")); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if all, _, err := w.StorageActions.List(ctx, v.ID, nil); err != nil || len(all) != 1 || all[0].Type != "attach_volume" {
		t.Errorf("actions: %v %v", all, err)
	}
}

func TestWhereAVolumeCanGo(t *testing.T) {
	w, ctx := start(t, Config{}), t.Context()
	w.droplet(1, "nyc1", nil)
	w.droplet(2, "fra1", nil)
	v := w.create("data")
	_, _, err := w.StorageActions.Attach(ctx, v.ID, 2)
	refused(t, "another region", err, 422, "not in the same region")
	_, _, err = w.StorageActions.Attach(ctx, v.ID, 3)
	refused(t, "no such droplet", err, 404, "droplet not found")
	for i := range 7 {
		w.done(w.StorageActions.Attach(ctx, w.create(fmt.Sprint("v", i)).ID, 1))
	}
	_, _, err = w.StorageActions.Attach(ctx, v.ID, 1)
	refused(t, "the eighth", err, 422, godo.ErrPerDropletVolumeCountLimit)

	// By name, which the client has no method for.
	w.droplet(4, "nyc1", nil)
	body := map[string]any{"type": "attach", "volume_name": "data", "region": "nyc1", "droplet_id": 4}
	req, err := w.NewRequest(ctx, http.MethodPost, "v2/volumes/actions", body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Do(ctx, req, nil); err != nil {
		t.Error(err)
	}
	w.clock.Advance(0)
	if got := w.get(v.ID).DropletIDs; !slices.Equal(got, []int{4}) {
		t.Errorf("attached to %v", got)
	}
}

func TestResize(t *testing.T) {
	w, ctx := start(t, Config{}), t.Context()
	one := w.host(1)
	v := w.create("data")
	w.done(w.StorageActions.Attach(ctx, v.ID, 1))
	for _, gib := range []int{0, 1, 16385} {
		_, _, err := w.StorageActions.Resize(ctx, v.ID, gib, "nyc1")
		refused(t, fmt.Sprint("to ", gib), err, 422, "size must be")
	}
	if got := w.done(w.StorageActions.Resize(ctx, v.ID, 3, "nyc1")); got != "completed" {
		t.Errorf("resize: %s", got)
	}
	f, err := os.Open(link(one, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end != 3*gib || w.get(v.ID).SizeGigaBytes != 3 {
		t.Errorf("the device has %d bytes (%v), the volume %v", end, err, w.get(v.ID))
	}
}

func TestActionThatFails(t *testing.T) {
	w := start(t, Config{})
	one := w.host(1)
	v := w.create("data")
	w.Calls.Add(fake.Fault{Call: "volumes.attach", What: fake.Errored, Times: 1})
	if got := w.done(w.StorageActions.Attach(t.Context(), v.ID, 1)); got != "errored" {
		t.Errorf("attach: %s", got)
	}
	if got := w.get(v.ID).DropletIDs; len(got) != 0 || len(one.Names()) != 0 {
		t.Errorf("attached to %v, disks %v", got, one.Names())
	}
	if got := w.done(w.StorageActions.Attach(t.Context(), v.ID, 1)); got != "completed" {
		t.Errorf("attach again: %s", got)
	}
}

func TestDetachOfAMountedVolume(t *testing.T) {
	for _, fails := range []bool{true, false} {
		w, ctx := start(t, Config{BusyFails: fails}), t.Context()
		one := w.host(1)
		v := w.create("data")
		w.done(w.StorageActions.Attach(ctx, v.ID, 1))
		at := faketest.Mounted(t, link(one, "data"))
		got := w.done(w.StorageActions.DetachByDropletID(ctx, v.ID, 1))
		if fails {
			if ids := w.get(v.ID).DropletIDs; got != "errored" || !slices.Equal(ids, []int{1}) {
				t.Errorf("detach: %s, attached to %v", got, ids)
			}
			if err := unix.Unmount(at, 0); err != nil {
				t.Error(err)
			}
			continue
		}
		if ids := w.get(v.ID).DropletIDs; got != "completed" || len(ids) != 0 {
			t.Errorf("detach: %s, attached to %v", got, ids)
		}
		two := w.host(2)
		w.done(w.StorageActions.Attach(ctx, v.ID, 2))
		faketest.Lost(t, at, link(two, "data"))
	}
}

func TestDropletsComeAndGo(t *testing.T) {
	w, ctx := start(t, Config{Gone: time.Minute}), t.Context()
	one := w.host(1)
	w.droplet(2, "nyc1", nil)
	v := w.create("data")
	w.done(w.StorageActions.Attach(ctx, v.ID, 1))
	faketest.Write(t, link(one, "data"), "kept")
	status := func(id int) string {
		d, _, err := w.Droplets.Get(ctx, id)
		if err != nil {
			return err.Error()
		}
		return d.Status
	}
	if err := w.PowerOff(1); err != nil || status(1) != "off" || len(one.Names()) != 0 {
		t.Errorf("off: %v, %s, %v", err, status(1), one.Names())
	}
	if got := w.get(v.ID).DropletIDs; !slices.Equal(got, []int{1}) {
		t.Errorf("a droplet that is off lets go of its volume: %v", got)
	}
	if err := w.PowerOn(1); err != nil || status(1) != "active" || faketest.Read(t, link(one, "data"), 4) != "kept" {
		t.Errorf("on: %v, %s", err, status(1))
	}
	if _, err := w.Droplets.Delete(ctx, 1); err != nil || !strings.Contains(status(1), "404") {
		t.Errorf("delete: %v, %s", err, status(1))
	}
	_, _, err := w.StorageActions.Attach(ctx, v.ID, 2)
	refused(t, "attach before the dead lets go", err, 422, godo.ErrVolumeAlreadyAttached)
	w.clock.Advance(time.Minute)
	if got := w.done(w.StorageActions.Attach(ctx, v.ID, 2)); got != "completed" {
		t.Errorf("attach after it did: %s", got)
	}
}

func TestSnapshots(t *testing.T) {
	w, ctx := start(t, Config{}), t.Context()
	one := w.host(1)
	v := w.create("data")
	w.done(w.StorageActions.Attach(ctx, v.ID, 1))
	faketest.Write(t, link(one, "data"), "old")
	s, _, err := w.Storage.CreateSnapshot(ctx, &godo.SnapshotCreateRequest{VolumeID: v.ID, Name: "s1", Tags: []string{"x"}})
	if err != nil || s.MinDiskSize != 1 || s.ResourceID != v.ID || s.SizeGigaBytes <= 0 || !slices.Equal(s.Tags, []string{"x"}) {
		t.Fatalf("snapshot: %v %v", s, err)
	}
	faketest.Write(t, link(one, "data"), "new")
	w.make(godo.VolumeCreateRequest{Name: "copy", Region: "nyc1", SizeGigaBytes: 2, SnapshotID: s.ID})
	copied := w.named("nyc1", "copy")
	if got := faketest.Read(t, w.files.Path(copied.id), 3); got != "old" {
		t.Errorf("the copy has %q", got)
	}
	_, _, err = w.Storage.CreateVolume(ctx, &godo.VolumeCreateRequest{Name: "far", Region: "fra1", SizeGigaBytes: 2, SnapshotID: s.ID})
	refused(t, "in another region", err, 422, "not available in region")
	for what, list := range map[string]func() ([]godo.Snapshot, *godo.Response, error){
		"of the volume":  func() ([]godo.Snapshot, *godo.Response, error) { return w.Storage.ListSnapshots(ctx, v.ID, nil) },
		"of the account": func() ([]godo.Snapshot, *godo.Response, error) { return w.Snapshots.ListVolume(ctx, nil) },
		"of the region": func() ([]godo.Snapshot, *godo.Response, error) {
			return w.Snapshots.ListVolumeSnapshotByRegion(ctx, "nyc1", nil)
		},
	} {
		if got, _, err := list(); err != nil || len(got) != 1 || got[0].ID != s.ID {
			t.Errorf("%s: %v %v", what, got, err)
		}
	}
	if got, _, err := w.Snapshots.ListVolumeSnapshotByRegion(ctx, "fra1", nil); err != nil || len(got) != 0 {
		t.Errorf("of another region: %v %v", got, err)
	}
	if _, err := w.Storage.DeleteSnapshot(ctx, s.ID); err != nil {
		t.Error(err)
	}
	_, _, err = w.Storage.GetSnapshot(ctx, s.ID)
	refused(t, "get a deleted one", err, 404, "snapshot")
}

func TestTags(t *testing.T) {
	w, ctx := start(t, Config{}), t.Context()
	v := w.create("data")
	_, err := w.Tags.TagResources(ctx, "Remora", &godo.TagResourcesRequest{Resources: []godo.Resource{{ID: v.ID, Type: godo.VolumeResourceType}}})
	refused(t, "a tag that there is not", err, 404, "could not be found")
	if _, _, err := w.Tags.Create(ctx, &godo.TagCreateRequest{Name: "Remora"}); err != nil {
		t.Fatal(err)
	}
	// The case of a tag makes no difference, and that of the first is kept.
	if _, err = w.Tags.TagResources(ctx, "remora", &godo.TagResourcesRequest{Resources: []godo.Resource{{ID: v.ID, Type: godo.VolumeResourceType}}}); err != nil {
		t.Fatal(err)
	}
	if got := w.get(v.ID).Tags; !slices.Equal(got, []string{"Remora"}) {
		t.Errorf("tags %v", got)
	}
	if tag, _, err := w.Tags.Get(ctx, "REMORA"); err != nil || tag.Resources.Volumes.Count != 1 {
		t.Errorf("tag %v %v", tag, err)
	}
	_, err = w.Tags.TagResources(ctx, "remora", &godo.TagResourcesRequest{Resources: []godo.Resource{{ID: "x", Type: godo.VolumeResourceType}}})
	refused(t, "a volume that there is not", err, 404, "resource not found")
	if _, err := w.Tags.UntagResources(ctx, "remora", &godo.UntagResourcesRequest{Resources: []godo.Resource{{ID: v.ID, Type: godo.VolumeResourceType}}}); err != nil {
		t.Error(err)
	}
	if got := w.get(v.ID).Tags; len(got) != 0 {
		t.Errorf("tags %v", got)
	}
	tagged := w.make(godo.VolumeCreateRequest{Name: "tagged", Region: "nyc1", SizeGigaBytes: 1, Tags: []string{"a", "b"}})
	if _, err := w.Tags.Delete(ctx, "a"); err != nil {
		t.Error(err)
	}
	if got := w.get(tagged.ID).Tags; !slices.Equal(got, []string{"b"}) {
		t.Errorf("tags %v", got)
	}
	all, _, err := w.Tags.List(ctx, nil)
	if err != nil || len(all) != 2 || all[0].Name != "b" || all[1].Name != "Remora" {
		t.Errorf("tags %v %v", all, err)
	}
}

func TestFileSystemThatTheCloudMade(t *testing.T) {
	w := start(t, Config{})
	for _, fs := range []string{"ext4", "xfs"} {
		v := w.make(godo.VolumeCreateRequest{Name: fs, Region: "nyc1", SizeGigaBytes: 1, FilesystemType: fs, FilesystemLabel: "hello"})
		out, err := run.Output(t.Context(), nil, "blkid", "-o", "value", "-s", "TYPE", "-s", "LABEL", w.files.Path(v.ID))
		if diff := cmp.Diff("hello\n"+fs+"\n", string(out)); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	}
}

func TestMetadata(t *testing.T) {
	w := start(t, Config{})
	w.droplet(7, "fra1", nil)
	srv := httptest.NewServer(w.Metadata(7))
	defer srv.Close()
	for path, want := range map[string]string{
		"id": "7", "region": "fra1", "hostname": "host-7", "none": "404 page not found\n",
	} {
		resp, err := http.Get(srv.URL + "/metadata/v1/" + path)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != want {
			t.Errorf("%s is %q", path, got)
		}
	}
}
