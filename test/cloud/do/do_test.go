package do

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/cloud/fake"
	"github.com/remora-plugins/remora/test/cloud/machine"
)

const token = "dop_v1_secret"

// world is a cloud with a clock that stands still, its API by HTTP, and a client.
type world struct {
	*Cloud
	*godo.Client
	t     *testing.T
	clock *fake.Manual
	url   string
}

func start(t *testing.T, cfg Config) *world {
	t.Helper()
	clock := fake.NewManual(time.Now())
	cfg.Dir, cfg.Clock = t.TempDir(), clock
	cfg.Tokens = map[string]bool{token: true, "reader": false}
	c := New(cfg)
	srv := httptest.NewServer(c.Handler())
	t.Cleanup(srv.Close)
	return &world{c, client(t, srv.URL, token), t, clock, srv.URL}
}

func client(t *testing.T, url, token string) *godo.Client {
	t.Helper()
	client, err := godo.New(&http.Client{Transport: bearer(token)}, godo.SetBaseURL(url))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// host adds a droplet in nyc1 that can be looked at.
func (w *world) host(id int) *machine.Machine {
	w.t.Helper()
	testenv.Require(w.t, testenv.Loop)
	m, err := machine.New(w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.droplet(id, "nyc1", m)
	return m
}

func (w *world) droplet(id int, region string, m *machine.Machine) {
	w.t.Helper()
	if err := w.AddDroplet(id, fmt.Sprintf("host-%d", id), region, m); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) create(name string) *godo.Volume {
	w.t.Helper()
	return w.make(godo.VolumeCreateRequest{Name: name, Region: "nyc1", SizeGigaBytes: 1})
}

func (w *world) make(req godo.VolumeCreateRequest) *godo.Volume {
	w.t.Helper()
	v, _, err := w.Storage.CreateVolume(w.t.Context(), &req)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) get(id string) *godo.Volume {
	w.t.Helper()
	v, _, err := w.Storage.GetVolume(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// done lets an action end and returns how.
func (w *world) done(a *godo.Action, _ *godo.Response, err error) string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	if a.Status != "in-progress" || a.CompletedAt != nil {
		w.t.Errorf("new action: %v", a)
	}
	w.clock.Advance(time.Minute)
	a, _, err = w.Actions.Get(w.t.Context(), a.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Status
}

// link is the path by which a droplet knows a volume.
func link(m *machine.Machine, name string) string {
	return filepath.Join(m.Dev(), "disk/by-id/scsi-0DO_Volume_"+name)
}

// refused wants a status and a part of the message.
func refused(t *testing.T, what string, err error, status int, text string) {
	t.Helper()
	var e *godo.ErrorResponse
	if !errors.As(err, &e) || e.Response.StatusCode != status || !strings.Contains(e.Message, text) {
		t.Errorf("%s: %v, want %d %q", what, err, status, text)
	}
}

func TestCreateGetListDelete(t *testing.T) {
	w, ctx := start(t, Config{}), t.Context()
	v := w.make(godo.VolumeCreateRequest{
		Name: "data", Region: "nyc1", SizeGigaBytes: 10, Description: "of remora", Tags: []string{"remora", "id:1"},
	})
	want := &godo.Volume{
		ID: v.ID, Name: "data", SizeGigaBytes: 10, Description: "of remora", DropletIDs: []int{}, Tags: []string{"remora", "id:1"},
		Region: v.Region, CreatedAt: w.clock.Now().UTC().Truncate(time.Second),
	}
	if diff := cmp.Diff(want, v); diff != "" || v.Region.Slug != "nyc1" {
		t.Errorf("region %v %s", v.Region, diff)
	}
	if diff := cmp.Diff(want, w.get(v.ID)); diff != "" {
		t.Error(diff)
	}
	other := w.make(godo.VolumeCreateRequest{Name: "data", Region: "fra1", SizeGigaBytes: 1})
	w.create("more")
	for _, c := range []struct {
		params *godo.ListVolumeParams
		want   []string
	}{
		{nil, []string{"data", "data", "more"}},
		{&godo.ListVolumeParams{Name: "data"}, []string{"data", "data"}},
		{&godo.ListVolumeParams{Region: "nyc1"}, []string{"data", "more"}},
		{&godo.ListVolumeParams{Name: "data", Region: "fra1"}, []string{"data"}},
		{&godo.ListVolumeParams{Name: "none"}, nil},
	} {
		got, _, err := w.Storage.ListVolumes(ctx, c.params)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range got {
			names = append(names, v.Name)
		}
		if diff := cmp.Diff(c.want, names); diff != "" {
			t.Errorf("%v: %s", c.params, diff)
		}
	}
	if _, err := w.Storage.DeleteVolume(ctx, other.ID); err != nil {
		t.Error(err)
	}
	_, err := w.Storage.DeleteVolume(ctx, other.ID)
	refused(t, "delete twice", err, http.StatusNotFound, "volume not found")
	if _, err := os.Stat(w.files.Path(other.ID)); !os.IsNotExist(err) {
		t.Errorf("the file of a deleted volume: %v", err)
	}
}

func TestWrongCreates(t *testing.T) {
	w := start(t, Config{VolumeLimit: 2})
	w.create("taken")
	for what, c := range map[string]struct {
		change func(*godo.VolumeCreateRequest)
		status int
		text   string
	}{
		"upper case":       {func(r *godo.VolumeCreateRequest) { r.Name = "Data" }, 422, "invalid name"},
		"underscore":       {func(r *godo.VolumeCreateRequest) { r.Name = "my_data" }, 422, "invalid name"},
		"begins wrong":     {func(r *godo.VolumeCreateRequest) { r.Name = "1data" }, 422, "invalid name"},
		"65 letters":       {func(r *godo.VolumeCreateRequest) { r.Name = strings.Repeat("a", 65) }, 422, "invalid name"},
		"region":           {func(r *godo.VolumeCreateRequest) { r.Region = "mars1" }, 422, "invalid region"},
		"no size":          {func(r *godo.VolumeCreateRequest) { r.SizeGigaBytes = 0 }, 422, "size must be"},
		"too large":        {func(r *godo.VolumeCreateRequest) { r.SizeGigaBytes = 16385 }, 422, "size must be"},
		"file system":      {func(r *godo.VolumeCreateRequest) { r.FilesystemType = "btrfs" }, 422, "filesystem type"},
		"label":            {func(r *godo.VolumeCreateRequest) { r.FilesystemLabel = "x" }, 422, "filesystem label"},
		"tag":              {func(r *godo.VolumeCreateRequest) { r.Tags = []string{"a=b"} }, 422, "tag names"},
		"snapshot":         {func(r *godo.VolumeCreateRequest) { r.SnapshotID = "none" }, 404, "snapshot"},
		"name taken":       {func(r *godo.VolumeCreateRequest) { r.Name = "taken" }, 409, "failed to create volume"},
		"name of 64 is OK": {func(r *godo.VolumeCreateRequest) { r.Name = strings.Repeat("a", 64) }, 0, ""},
	} {
		req := godo.VolumeCreateRequest{Name: "data", Region: "nyc1", SizeGigaBytes: 1}
		c.change(&req)
		v, _, err := w.Storage.CreateVolume(t.Context(), &req)
		if c.status != 0 {
			refused(t, what, err, c.status, c.text)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := w.Storage.DeleteVolume(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
	w.create("second")
	_, _, err := w.Storage.CreateVolume(t.Context(), &godo.VolumeCreateRequest{Name: "third", Region: "nyc1", SizeGigaBytes: 1})
	refused(t, "over the limit", err, 403, godo.ErrVolumeCapacityLimitExceeded)
}

func TestPages(t *testing.T) {
	w := start(t, Config{})
	var want, got []string
	for i := range 45 {
		want = append(want, w.create("v"+strconv.Itoa(i)).Name)
	}
	pages := 0
	for opt := (&godo.ListOptions{}); ; pages++ {
		page, resp, err := w.Storage.ListVolumes(t.Context(), &godo.ListVolumeParams{Region: "nyc1", ListOptions: opt})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page {
			got = append(got, v.Name)
		}
		if resp.Links.IsLastPage() {
			break
		}
		next, err := url.Parse(resp.Links.Pages.Next)
		if err != nil || next.Query().Get("region") != "nyc1" {
			t.Fatalf("next page at %s (%v)", resp.Links.Pages.Next, err)
		}
		page0, err := resp.Links.CurrentPage()
		if err != nil {
			t.Fatal(err)
		}
		opt.Page = page0 + 1
	}
	if pages != 2 || !slices.Equal(want, got) {
		t.Errorf("%d pages before the last: %v", pages, got)
	}
	some, resp, err := w.Storage.ListVolumes(t.Context(), &godo.ListVolumeParams{ListOptions: &godo.ListOptions{PerPage: 500}})
	if err != nil || len(some) != 45 || resp.Meta.Total != 45 {
		t.Errorf("one large page: %d of %v, %v", len(some), resp.Meta, err)
	}
}

func TestListsLagBehind(t *testing.T) {
	w := start(t, Config{ListLag: 10 * time.Second})
	names := func() (out []string) {
		got, _, err := w.Storage.ListVolumes(t.Context(), &godo.ListVolumeParams{Name: "late"})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range got {
			out = append(out, fmt.Sprintf("%s %d", v.Name, v.DropletIDs))
		}
		return out
	}
	w.droplet(1, "nyc1", nil)
	v := w.create("late")
	for _, step := range []struct {
		do   func()
		want []string
	}{
		{func() {}, nil},
		{func() { w.clock.Advance(10 * time.Second) }, []string{"late []"}},
		{func() {
			if _, _, err := w.StorageActions.Attach(t.Context(), v.ID, 1); err != nil {
				t.Fatal(err)
			}
			w.clock.Advance(time.Second)
			if got := w.get(v.ID).DropletIDs; !slices.Equal(got, []int{1}) {
				t.Errorf("a get shows %v", got)
			}
		}, []string{"late []"}},
		{func() { w.clock.Advance(9 * time.Second) }, []string{"late [1]"}},
	} {
		step.do()
		if diff := cmp.Diff(step.want, names()); diff != "" {
			t.Error(diff)
		}
	}
}
