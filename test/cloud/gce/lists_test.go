package gce

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/compute/v1"
)

func TestFilters(t *testing.T) {
	w := start(t, Config{})
	for i, labels := range []map[string]string{{"pool": "a"}, {"pool": "b"}, {"pool": "a", "old": ""}, nil} {
		w.create(&compute.Disk{Name: fmt.Sprintf("disk-%d", i), SizeGb: int64(10 * (i + 1)), Labels: labels})
	}
	for text, want := range map[string]string{
		``:                                      "0123",
		`name = disk-1`:                         "1",
		`name="disk-1"`:                         "1",
		`name != disk-1`:                        "023",
		`labels.pool = a`:                       "02",
		`labels.pool=a AND sizeGb > 10`:         "2",
		`labels.pool:*`:                         "012",
		`labels.old:*`:                          "2",
		`-labels.pool:*`:                        "3",
		`(labels.pool = "a") (name = "disk-0")`: "0",
		`(name = disk-0) OR (name = disk-3)`:    "03",
		`name=disk-0 OR name=disk-1 AND sizeGb>=20`: "1",
		`name : isk`:          "0123",
		`name = *-2`:          "2",
		`sizeGb <= 20`:        "01",
		`status = READY`:      "0123",
		`name eq disk-[12]`:   "12",
		`name eq isk`:         "",
		`name ne "disk-[12]"`: "03",
		`labels.pool eq b`:    "1",
	} {
		got, err := w.api.Disks.List(project, zone).Filter(text).Do()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var names strings.Builder
		for _, d := range got.Items {
			names.WriteString(strings.TrimPrefix(d.Name, "disk-"))
		}
		if names.String() != want {
			t.Errorf("%s: %s, want %s", text, names.String(), want)
		}
	}
	for _, text := range []string{`name`, `name =`, `(name = a`, `name = a)`, `name eq [`, `name = a AND`} {
		_, err := w.api.Disks.List(project, zone).Filter(text).Do()
		refused(t, text, err, 400, "invalid", "Invalid list filter expression")
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`(labels.pool = "a") OR (name eq x)`)
	f.Add(`name ne 'a.*'`)
	f.Fuzz(func(t *testing.T, text string) {
		if want, err := parseFilter(text); err == nil {
			want(func(string) (string, bool) { return "a", true })
		}
	})
}

func TestPages(t *testing.T) {
	w := start(t, Config{})
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("d%d", i)
		in := zone
		if i > 4 {
			in = zoneB
		}
		want = append(want, name)
		w.end(w.api.Disks.Insert(project, in, &compute.Disk{Name: name, SizeGb: 10}).Do())
	}
	var got []string
	pages := 0
	err := w.api.Disks.List(project, zone).MaxResults(2).Pages(t.Context(), func(page *compute.DiskList) error {
		pages++
		for _, d := range page.Items {
			got = append(got, d.Name)
		}
		return nil
	})
	if err != nil || pages != 3 || !slices.Equal(got, want[:5]) {
		t.Errorf("%d pages: %v %v", pages, got, err)
	}
	got, pages = nil, 0
	empty := 0
	err = w.api.Disks.AggregatedList(project).MaxResults(3).Pages(t.Context(), func(page *compute.DiskAggregatedList) error {
		pages++
		for _, scope := range []string{"zones/" + zone, "zones/" + zoneB, "zones/europe-west1-b"} {
			if in := page.Items[scope]; in.Warning != nil && in.Warning.Code == "NO_RESULTS_ON_PAGE" {
				empty++
			}
			for _, d := range page.Items[scope].Disks {
				got = append(got, d.Name)
			}
		}
		return nil
	})
	if err != nil || pages != 3 || empty != 5 || !slices.Equal(got, want) {
		t.Errorf("%d pages, %d empty scopes: %v %v", pages, empty, got, err)
	}
	_, err = w.api.Disks.List(project, zone).MaxResults(501).Do()
	refused(t, "501 results", err, 400, "invalid", "maxResults")
	_, err = w.api.Disks.List(project, zone).PageToken("!").Do()
	refused(t, "a token of ours", err, 400, "invalid", "pageToken")
}

func TestListsLagBehind(t *testing.T) {
	w := start(t, Config{ListLag: 90 * time.Second})
	count := func() int {
		got, err := w.api.Disks.List(project, zone).Do()
		if err != nil {
			t.Fatal(err)
		}
		return len(got.Items)
	}
	w.create(&compute.Disk{Name: "data", SizeGb: 10}) // a minute
	if n := count(); n != 0 {
		t.Errorf("after a minute the list has %d", n)
	}
	w.clock.Advance(30 * time.Second)
	if n := count(); n != 1 {
		t.Errorf("after 90 s the list has %d", n)
	}
	w.end(w.api.Disks.Delete(project, zone, "data").Do())
	if n := count(); n != 1 {
		t.Errorf("a minute after the delete the list has %d", n)
	}
	w.clock.Advance(30 * time.Second)
	if n := count(); n != 0 {
		t.Errorf("90 s after the delete the list has %d", n)
	}
}

func TestZoneOutOfReach(t *testing.T) {
	w := start(t, Config{})
	w.create(&compute.Disk{Name: "here", SizeGb: 10})
	w.end(w.api.Disks.Insert(project, zoneB, &compute.Disk{Name: "there", SizeGb: 10}).Do())
	w.Unreachable(zoneB, true)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := w.api.Disks.Get(project, zoneB, "there").Context(ctx).Do()
	refused(t, "get", err, 503, "backendError", "")
	_, err = w.api.Disks.AggregatedList(project).Context(ctx).Do()
	refused(t, "all", err, 503, "backendError", "")
	got, err := w.api.Disks.AggregatedList(project).ReturnPartialSuccess(true).Do()
	if err != nil || !slices.Equal(got.Unreachables, []string{"zones/" + zoneB}) || len(got.Items["zones/"+zone].Disks) != 1 {
		t.Errorf("a part: %v %v", got, err)
	}
	w.Unreachable(zoneB, false)
	if _, err := w.api.Disks.Get(project, zoneB, "there").Do(); err != nil {
		t.Error(err)
	}
}

func TestPlaces(t *testing.T) {
	w := start(t, Config{QuotaGB: 500})
	w.create(&compute.Disk{Name: "data", SizeGb: 10})
	zones, err := w.api.Zones.List(project).Do()
	if err != nil || len(zones.Items) != 3 {
		t.Errorf("zones %v %v", zones, err)
	}
	z, err := w.api.Zones.Get(project, zone).Do()
	if err != nil || z.Status != "UP" || last(z.Region) != "us-central1" {
		t.Errorf("zone %v %v", z, err)
	}
	regions, err := w.api.Regions.List(project).Do()
	if err != nil || len(regions.Items) != 2 {
		t.Errorf("regions %v %v", regions, err)
	}
	r, err := w.api.Regions.Get(project, "us-central1").Do()
	if err != nil || len(r.Zones) != 2 || r.Quotas[0].Usage != 10 || r.Quotas[0].Limit != 500 {
		t.Errorf("region %+v %v", r, err)
	}
	types, err := w.api.DiskTypes.List(project, zone).Do()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range types.Items {
		names = append(names, d.Name+" "+d.ValidDiskSize)
	}
	want := []string{
		"hyperdisk-balanced 4GB-65536GB", "pd-balanced 10GB-65536GB", "pd-extreme 500GB-65536GB", "pd-ssd 10GB-65536GB", "pd-standard 10GB-65536GB",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	_, err = w.api.DiskTypes.Get(project, zone, "pd-fast").Do()
	refused(t, "a type that there is not", err, 404, "notFound", "diskTypes/pd-fast")
	ops, err := w.api.ZoneOperations.List(project, zone).Filter("operationType = insert").Do()
	if err != nil || len(ops.Items) != 1 {
		t.Errorf("operations %v %v", ops, err)
	}
}
