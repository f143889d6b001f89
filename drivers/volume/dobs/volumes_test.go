package dobs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/do"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

func (c *cloud) make(t testing.TB, p *provider, s block.Spec) block.Disk {
	t.Helper()
	d, err := p.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPages: a list of more than one page is whole, what is not ours left out, and few of many are
// asked for one by one.
func TestPages(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	const n = 450
	var ids []string
	for i := range n {
		s := spec(strconv.Itoa(1000 + i))
		if i%2 == 0 {
			s.Tags[block.TagNamespace] = "other"
		}
		if d := c.make(t, p, s); i%2 != 0 {
			ids = append(ids, d.ID)
		}
	}
	c.Calls.Reset()
	list, err := p.List(t.Context(), block.Query{Namespace: "test"})
	if err != nil || len(list) != n/2 || c.Calls.Total() != 3 {
		t.Fatalf("%d disks in %d requests, %v", len(list), c.Calls.Total(), err)
	}
	for _, tt := range []struct {
		q          block.Query
		want, most int
	}{
		{block.Query{IDs: ids[:1]}, 1, 1},
		{block.Query{IDs: append([]string{"gone"}, ids[:2]...)}, 2, 3},
		{block.Query{IDs: ids[:20]}, 20, 3},
		{block.Query{Names: []string{"1001", "1002", "1003"}}, 2, 3},
		{block.Query{Names: []string{"1001"}, IDs: ids[5:6]}, 2, 3},
	} {
		c.Calls.Reset()
		tt.q.Namespace = "test"
		list, err := p.List(t.Context(), tt.q)
		if err != nil || len(list) != tt.want || c.Calls.Total() > tt.most {
			t.Errorf("%+v: %d disks in %d requests, %v", tt.q, len(list), c.Calls.Total(), err)
		}
	}
}

// TestListThatChanges: what is deleted while pages are read moves others to pages that were read.
// They are missed by no list.
func TestListThatChanges(t *testing.T) {
	ignoreEnvironment(t)
	all := make([]int, 600)
	for i := range all {
		all[i] = i
	}
	deletes := 2
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		from := min((page-1)*200, len(all))
		var list []string
		for _, i := range all[from:min(from+200, len(all))] {
			list = append(list, fmt.Sprintf(`{"id":"v%d","name":"remora-00000000-0000-8000-8000-%012d","tags":["remora:pool:test","remora:volume:v%d"]}`, i, i, i))
		}
		next := ""
		if from+200 < len(all) {
			next = `"pages":{"next":"https://x/v2/volumes?page=` + strconv.Itoa(page+1) + `","last":"https://x/v2/volumes?page=3"}`
		}
		fmt.Fprintf(w, `{"volumes":[%s],"links":{%s},"meta":{"total":%d}}`, strings.Join(list, ","), next, len(all))
		if page == 1 && deletes > 0 {
			deletes--
			all = all[1:]
		}
	}))
	t.Cleanup(s.Close)
	c := cloud{url: s.URL}
	list, err := c.open(t, c.pool(), "").List(t.Context(), block.Query{Namespace: "test"})
	if err != nil || len(list) != 598 {
		t.Fatalf("%d disks, %v; want 598", len(list), err)
	}
	deletes = 1000
	_, err = c.open(t, c.pool(), "").List(t.Context(), block.Query{Namespace: "test"})
	wantErr(t, err, errdefs.ErrUnavailable, "changed")
}

// TestCreateTwice: the same disk is made once, whatever becomes of the answer; one of the name that
// is not ours is not taken.
func TestCreateTwice(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	c.Calls.Add(fake.Fault{Call: "volumes.create", What: fake.Lose, Times: 1})
	_, err := p.Create(t.Context(), spec("data"))
	wantErr(t, err, errdefs.ErrUnavailable, "volumes.create")
	d := c.make(t, p, spec("data"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			again, err := c.open(t, c.pool(), "").Create(t.Context(), spec("data"))
			if err != nil || again.ID != d.ID {
				t.Errorf("%s, %v; want %s", again.ID, err, d.ID)
			}
		})
	}
	all.Wait()
	if diff := cmp.Diff(spec("data").Tags, d.Tags); diff != "" {
		t.Error(diff)
	}
	s := spec("other")
	c.volume(t, godo.VolumeCreateRequest{Name: namePrefix + s.UUID, SizeGigaBytes: 1, Region: nyc})
	_, err = p.Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrExists, "not our tags")
	for range 2 {
		if err := p.Delete(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
}

// TestTagsLeftOut: where the answer has none of the tags, it is seen to it that the disk has them.
func TestTagsLeftOut(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		c := newCloud(t, still())
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || r.URL.Path != "/v2/volumes" {
				c.Handler().ServeHTTP(w, r)
				return
			}
			tags := regexp.MustCompile(`"tags":\[[^]]*\]`)
			if dropped {
				body, _ := io.ReadAll(r.Body)
				body = tags.ReplaceAll(body, []byte(`"tags":[]`))
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
			answer := httptest.NewRecorder()
			c.Handler().ServeHTTP(answer, r)
			w.WriteHeader(answer.Code)
			_, _ = w.Write(tags.ReplaceAll(answer.Body.Bytes(), []byte(`"tags":[]`)))
		}))
		t.Cleanup(s.Close)
		conf := c.pool()
		conf.Endpoint = s.URL
		p := c.open(t, conf, "")
		d := c.make(t, p, spec("data"))
		list, err := p.List(t.Context(), block.Query{Namespace: "test"})
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		for _, tags := range []block.Tags{d.Tags, list[0].Tags} {
			if diff := cmp.Diff(spec("data").Tags, tags); diff != "" {
				t.Errorf("dropped %v: %s", dropped, diff)
			}
		}
	}
}

// TestSetTags: tags of others stay, tags are changed whoever changed them before, and the disk that
// was just made is not asked for.
func TestSetTags(t *testing.T) {
	c := newCloud(t, still())
	conf := c.pool()
	conf.Tags = []string{"production"}
	p := c.open(t, conf, "")
	d := c.make(t, p, spec("Data"))
	want := maps.Clone(spec("Data").Tags)
	set := func(p *provider, tags block.Tags, most int) {
		t.Helper()
		c.Calls.Reset()
		if err := p.SetTags(t.Context(), d, tags); err != nil {
			t.Fatal(err)
		}
		if n := c.Calls.Total(); n > most {
			t.Errorf("%v in %d requests, want %d: %v", tags, n, most, c.Calls.Counts())
		}
		for k, v := range tags {
			if want[k] = v; v == "" {
				delete(want, k)
			}
		}
		list, err := p.List(t.Context(), block.Query{Namespace: "test", IDs: []string{d.ID}})
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		if diff := cmp.Diff(want, list[0].Tags); diff != "" {
			t.Errorf("after %v: %s", tags, diff)
		}
	}
	set(p, block.Tags{"formatted": "begun"}, 2)
	set(p, block.Tags{"formatted": "2026-11-28T09:30:00Z", "fs": "ext4"}, 5)
	other := c.open(t, conf, "")
	set(other, block.Tags{block.TagName: "data", "fs": ""}, 5)
	set(other, block.Tags{block.TagName: "Data", "none": ""}, 3)
	set(other, block.Tags{}, 1)
	v, _, err := c.sdk(t).Storage.GetVolume(t.Context(), d.ID)
	if err != nil || !slices.Contains(v.Tags, "production") || len(v.Tags) != 4 {
		t.Errorf("tags are %q, %v", v.Tags, err)
	}
	// The tag was deleted by somebody, in the whole account.
	if _, err := c.sdk(t).Tags.Delete(t.Context(), "remora:fs:ext4"); err != nil {
		t.Fatal(err)
	}
	set(p, block.Tags{"fs": "ext4"}, 4)
	if err := p.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	wantErr(t, p.SetTags(t.Context(), d, block.Tags{"fs": "xfs"}), errdefs.ErrNotFound)
}

// TestFind: what is not ours is found by name, as REX-Ray changed it too, and by ID; what belongs to
// Kubernetes by nothing else.
func TestFind(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	c.make(t, p, spec("ours"))
	data := c.volume(t, godo.VolumeCreateRequest{Name: "my-data", SizeGigaBytes: 1, Region: "fra1", Tags: []string{"rexray"}})
	pvc := c.volume(t, godo.VolumeCreateRequest{Name: "pvc-1", SizeGigaBytes: 1, Region: nyc, Description: "Created by DigitalOcean CSI driver"})
	c.volume(t, godo.VolumeCreateRequest{Name: "pvc-2", SizeGigaBytes: 1, Region: nyc, Tags: []string{"k8s:4711"}})
	for ref, want := range map[string]string{
		"": "my-data " + data, "my-data": "my-data " + data, "my_data": "my_data " + data, data: "my-data " + data,
		pvc: "pvc-1 " + pvc, "pvc-1": "pvc-1 " + pvc, "ours": "", "none": "", "00000000-0000-4000-8000-000000000000": "",
	} {
		found, err := p.Find(t.Context(), ref)
		got := ""
		for _, f := range found {
			got += f.Name + " " + f.ID
		}
		if err != nil || got != want {
			t.Errorf("%q finds %q, %v; want %q", ref, got, err, want)
		}
	}
}

// TestAdopt: what is cut off is nobody's disk, and can be adopted again.
func TestAdopt(t *testing.T) {
	c := newCloud(t, still())
	for cut := range 6 {
		name := fmt.Sprint("my-data", cut)
		tags := block.Tags{
			block.TagUUID: "00000000-0000-8000-8000-00000000000" + strconv.Itoa(cut), block.TagNamespace: "test", block.TagName: name,
			"formatted": "2026-11-28T09:30:00Z", "root": "auto",
		}
		id := c.volume(t, godo.VolumeCreateRequest{Name: name, SizeGigaBytes: 1, Region: nyc})
		p := c.open(t, c.pool(), "")
		ours := func() []block.Disk {
			list, err := p.List(t.Context(), block.Query{Namespace: "test", Names: []string{name}})
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		c.Calls.Add(fake.Fault{Call: "tags.tag", What: fake.Fail, Skip: cut, Times: 1})
		for try := 0; len(ours()) == 0; try++ {
			found, err := p.Find(t.Context(), id)
			if err != nil || len(found) != 1 {
				t.Fatalf("found %v, %v", found, err)
			}
			err = p.Adopt(t.Context(), found[0], tags)
			if failed := err != nil; failed != (try == 0 && cut < 5) {
				t.Fatalf("cut at %d, try %d: %v", cut, try, err)
			}
			if n := len(ours()); err != nil && n != 0 {
				t.Errorf("cut at %d: it is ours already", cut)
			}
		}
		if diff := cmp.Diff(tags, ours()[0].Tags); diff != "" {
			t.Error(diff)
		}
		c.Calls.Clear()
	}
}

// TestBusyDisk: a snapshot and a resize wait until the disk is attached.
func TestBusyDisk(t *testing.T) {
	c := newCloud(t, do.Config{Hourly: -1, Burst: -1, Attach: 300 * time.Millisecond})
	id, _, metadata := c.droplet(t, nyc)
	p := c.open(t, c.pool(), metadata)
	d := c.make(t, p, spec("data"))
	if err := p.Attach(t.Context(), d, block.Host{ID: strconv.Itoa(id), Zone: nyc}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantErr(t, p.Resize(ctx, d, 2*gib), errdefs.ErrInUse, "409")
	tags := block.Tags{block.TagUUID: d.Tags[block.TagUUID], block.TagNamespace: "test", block.TagName: "data"}
	if _, err := p.CreateSnapshot(t.Context(), d, tags); err != nil {
		t.Error(err)
	}
	if err := p.Resize(t.Context(), d, 2*gib); err != nil {
		t.Error(err)
	}
}

// TestResize: only up, and a second time is no error.
func TestResize(t *testing.T) {
	c := newCloud(t, do.Config{Hourly: -1, Burst: -1, Resize: 20 * time.Millisecond})
	p := c.open(t, c.pool(), "")
	d := c.make(t, p, spec("data"))
	if err := p.Resize(t.Context(), d, 2*gib); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		list, err := p.List(t.Context(), block.Query{Namespace: "test", IDs: []string{d.ID}})
		if err != nil || time.Now().After(end) {
			t.Fatalf("%v, %v", list, err)
		}
		if list[0].Size == 2*gib {
			break
		}
	}
	if err := p.Resize(t.Context(), d, 2*gib); err != nil {
		t.Error(err)
	}
	wantErr(t, p.Resize(t.Context(), d, gib), errdefs.ErrInvalid, "2g", "smaller")
	wantErr(t, p.Resize(t.Context(), block.Disk{ID: "none"}, gib), errdefs.ErrNotFound)
}

// TestRealAddress: without an endpoint it is DigitalOcean's own that is asked, slowly.
func TestRealAddress(t *testing.T) {
	c := newCloud(t, still())
	conf := c.pool()
	conf.Endpoint, conf.Token = "", catalog.NewSecret(fmt.Sprint("of-this-run-", time.Now().UnixNano()))
	p := c.open(t, conf, "")
	if u := p.do.BaseURL; *u != (url.URL{Scheme: "https", Host: "api.digitalocean.com", Path: "/"}) {
		t.Errorf("it asks %s", u)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	n := 0
	for p.client.Do(ctx, "test", func(context.Context) error { n++; return nil }) == nil && n < 1000 {
	}
	if n < 5*ownRate || n > 5*ownRate+5 {
		t.Errorf("%d requests in a moment", n)
	}
}
