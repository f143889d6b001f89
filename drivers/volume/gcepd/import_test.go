package gcepd

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestPages: lists of more than one page, and more names than one filter takes.
func TestPages(t *testing.T) {
	c := newCloud(t, quick())
	p := c.here(t)
	const n = pageSize + 20
	var all sync.WaitGroup
	work := make(chan int)
	for range 8 {
		all.Go(func() {
			for i := range work {
				s := spec("1", fmt.Sprintf("volume%03d", i))
				s.UUID = fmt.Sprintf("00000000-0000-8000-8000-%012x", i)
				s.Tags[block.TagUUID] = s.UUID
				if _, err := p.Create(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var names []string
	for i := range n {
		work <- i
		if i%8 == 0 {
			names = append(names, fmt.Sprintf("volume%03d", i))
		}
	}
	close(work)
	all.Wait()
	time.Sleep(100 * time.Millisecond)
	if got, err := p.List(t.Context(), block.Query{Namespace: "remora"}); err != nil || len(got) != n {
		t.Errorf("%d of %d disks, %v", len(got), n, err)
	}
	c.Calls.Reset()
	got, err := p.List(t.Context(), block.Query{Namespace: "remora", Names: names})
	if asked := c.counts()["disks.aggregatedList"]; err != nil || len(got) != len(names) || asked != 2 {
		t.Errorf("%d of %d names by %d requests, %v", len(got), len(names), asked, err)
	}
	ids := make([]string, 0, len(got))
	for _, d := range got[:10] {
		ids = append(ids, d.ID)
	}
	c.Calls.Reset()
	if got, err = p.List(t.Context(), block.Query{Namespace: "remora", IDs: append(ids, zoneB+"/none")}); err != nil || len(got) != 10 || c.Calls.Total() != 1 {
		t.Errorf("%d of 10 IDs by %d requests, %v", len(got), c.Calls.Total(), err)
	}
	if got, err = p.List(t.Context(), block.Query{Namespace: "other"}); err != nil || len(got) != 0 {
		t.Errorf("of another namespace: %d, %v", len(got), err)
	}
}

// TestImport: what was taken in is ours as long as it is the same disk.
func TestImport(t *testing.T) {
	c := newCloud(t, quick())
	p := c.here(t)
	id := c.Foreign(t, "old", 20*gib)
	for _, ref := range []string{"", "old", id} {
		all, err := p.Find(t.Context(), ref)
		if err != nil || len(all) != 1 || all[0].ID != id || all[0].Name != "old" || all[0].Tags["libstoragetag"] != "old" || all[0].Size != 20*gib {
			t.Errorf("find %q: %+v %v", ref, all, err)
		}
	}
	for _, ref := range []string{"none", "No Disk_of Google", zoneA + "/none"} {
		if all, err := p.Find(t.Context(), ref); err != nil || len(all) != 0 {
			t.Errorf("find %q: %+v %v", ref, all, err)
		}
	}
	all, err := p.Find(t.Context(), "old")
	if err != nil {
		t.Fatal(err)
	}
	tags := spec("1", "My_Old").Tags
	if err := p.Adopt(t.Context(), all[0], tags); err != nil {
		t.Fatal(err)
	}
	d := until(t, p, id, func(d block.Disk) bool { return d.Tags[block.TagName] == "My_Old" })
	if c.get(t, id).Labels["libstoragetag"] != "old" {
		t.Error("a label of another tool was taken away")
	}
	if all, err = p.Find(t.Context(), "old"); err != nil || len(all) != 0 {
		t.Errorf("find what is ours: %+v %v", all, err)
	}
	op, err := c.sdk.Disks.Delete(project, zoneA, "old").Do()
	if err != nil {
		t.Fatal(err)
	}
	c.end(t, op)
	c.Foreign(t, "old", 30*gib)
	if err := p.Delete(t.Context(), d); err != nil {
		t.Error(err)
	}
	time.Sleep(100 * time.Millisecond)
	if got := c.get(t, id); got.SizeGb != 30 || got.Status != "READY" {
		t.Errorf("the disk that somebody made of the same name: %s", got.Status)
	}
	many := block.Tags{}
	for i := range 30 {
		many[fmt.Sprintf("o.%d", i)] = strings.Repeat("Ü", 100)
	}
	if err := p.SetTags(t.Context(), d, many); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("more than labels can hold: %v", err)
	}
}
