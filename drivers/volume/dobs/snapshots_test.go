package dobs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

// TestSnapshots: a snapshot is made once; where the list was behind, both are one.
func TestSnapshots(t *testing.T) {
	conf := still()
	conf.ListLag = time.Hour
	clock := fake.NewManual(time.Now())
	conf.Clock = clock
	c := newCloud(t, conf)
	p := c.open(t, c.pool(), "")
	d := c.make(t, p, spec("Data"))
	tags := block.Tags{
		block.TagUUID: "00000000-0000-8000-8000-000000000002", block.TagNamespace: "test", block.TagName: "Data", "snapshot": "Before/Upgrade", "l.empty": "", "of": d.Tags[block.TagUUID],
	}
	first, err := p.CreateSnapshot(t.Context(), d, tags)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.CreateSnapshot(t.Context(), d, tags); err != nil { // nothing is listed yet
		t.Fatal(err)
	}
	clock.Advance(2 * time.Hour)
	again, err := p.CreateSnapshot(t.Context(), d, tags)
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.Snapshots(t.Context(), block.Query{Namespace: "test", Names: []string{"Data"}})
	if err != nil || len(list) != 1 || list[0].Size != gib || len(strings.Fields(list[0].Facts[factCopies])) != 1 {
		t.Fatalf("snapshots are %+v, %v", list, err)
	}
	if diff := cmp.Diff(tags, list[0].Tags); diff != "" {
		t.Error(diff)
	}
	both := append(strings.Fields(list[0].Facts[factCopies]), list[0].ID)
	if !slices.Contains(both, first.ID) || !slices.Contains(both, again.ID) {
		t.Errorf("%s and %s are not %q", first.ID, again.ID, both)
	}
	seen, _, err := c.sdk(t).Snapshots.Get(t.Context(), first.ID)
	if err != nil || !strings.HasPrefix(seen.Name, "Data-Before_Upgrade-") {
		t.Errorf("people see %v, %v", seen, err)
	}
	for _, q := range []block.Query{{Namespace: "other"}, {Namespace: "test", Names: []string{"x"}}, {Namespace: "test", IDs: []string{"x"}}} {
		if list, err := p.Snapshots(t.Context(), q); err != nil || len(list) != 0 {
			t.Errorf("%+v: %v, %v", q, list, err)
		}
	}
	for range 2 {
		if err := p.DeleteSnapshot(t.Context(), list[0]); err != nil {
			t.Fatal(err)
		}
	}
	clock.Advance(2 * time.Hour)
	if all, _, err := c.sdk(t).Snapshots.ListVolume(t.Context(), &godo.ListOptions{}); err != nil || len(all) != 0 {
		t.Errorf("left: %v, %v", all, err)
	}
}

// TestFromSnapshot: a disk has room for the snapshot that it is made of, if nobody has said how
// large it is to be.
func TestFromSnapshot(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	big := spec("big")
	big.Size = 3 * gib
	d := c.make(t, p, big)
	snap, _, err := c.sdk(t).Storage.CreateSnapshot(t.Context(), &godo.SnapshotCreateRequest{VolumeID: d.ID, Name: "by hand"})
	if err != nil {
		t.Fatal(err)
	}
	s := spec("copy")
	s.Snapshot = &block.Snapshot{ID: snap.ID}
	if d := c.make(t, p, s); d.Size != 3*gib {
		t.Errorf("it has %d bytes", d.Size)
	}
	s = spec("small")
	s.Snapshot, s.Tags["o.size"] = &block.Snapshot{ID: snap.ID}, "1g"
	_, err = p.Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrInvalid, "1g", "3g")
	s.Snapshot = &block.Snapshot{ID: "none"}
	_, err = p.Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrInvalid, "no snapshot none")
}
