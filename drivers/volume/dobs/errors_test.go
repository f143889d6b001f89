package dobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/do"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

// wantErr is [blocktest.WantErr] with what is secret here.
func wantErr(t *testing.T, err, class error, words ...string) {
	t.Helper()
	blocktest.WantErr(t, err, class, secret, words...)
}

func spec(name string) block.Spec {
	id := "00000000-0000-8000-8000-" + (fmt.Sprintf("%x", name) + "000000000000")[:12]
	return block.Spec{
		UUID: id, Size: gib, Zone: nyc,
		Tags: block.Tags{block.TagUUID: id, block.TagNamespace: "test", block.TagName: name},
	}
}

func still() do.Config { return do.Config{Hourly: -1, Burst: -1} }

// TestAnswers has each answer come out as its class, with what to do.
func TestAnswers(t *testing.T) {
	ignoreEnvironment(t)
	var status int
	var message string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("x-request-id", "4711")
		w.WriteHeader(status)
		fmt.Fprint(w, message)
	}))
	t.Cleanup(s.Close)
	c := cloud{url: s.URL}
	p := c.open(t, c.pool(), "")
	for _, tt := range []struct {
		status  int
		message string
		class   error
		words   []string
	}{
		{401, "Unable to authenticate you", errdefs.ErrDenied, []string{"expired", "api/tokens"}},
		{402, "payment", errdefs.ErrDenied, []string{"billing"}},
		{403, "You are not authorized to perform this operation", errdefs.ErrDenied, []string{"scopes", "volumes.create", "4711"}},
		{403, "failed to create volume: volume/snapshot capacity limit exceeded", errdefs.ErrInvalid, []string{"support"}},
		{422, "volume limit exceeded", errdefs.ErrInvalid, []string{"support"}},
		{403, "you are missing the required permission block_storage:create", errdefs.ErrDenied, []string{"block_storage:create", "lacks a scope"}},
		{404, "not here", errdefs.ErrNotFound, []string{"not here"}},
		{404, "<html>no such page</html>", errdefs.ErrUnavailable, []string{"404", "no answer of DigitalOcean"}},
		{409, "volume has a pending event", errdefs.ErrInUse, nil},
		{422, "Droplet already has a pending event.", errdefs.ErrUnavailable, nil},
		{422, "This volume is already attached", errdefs.ErrInUse, nil},
		{422, "invalid region", errdefs.ErrInvalid, []string{nyc, "doctl compute region list"}},
		{422, "size must be between 1 GB and 16384 GB", errdefs.ErrInvalid, nil},
		{400, "error parsing request body", errdefs.ErrInvalid, nil},
		{418, "I am a teapot", errdefs.ErrInvalid, []string{"418"}},
		{500, "Server was unable to give you a response.", errdefs.ErrUnavailable, []string{"500", "status.digitalocean.com"}},
		{504, "<html>\n" + strings.Repeat("gateway ", 500) + "</html>", errdefs.ErrUnavailable, []string{"504"}},
		{302, "", errdefs.ErrUnavailable, []string{"302"}},
		{200, "<html>sign in to this network</html>", errdefs.ErrUnavailable, []string{"somebody else answers", "proxy"}},
	} {
		t.Run(strconv.Itoa(tt.status)+" "+strings.ReplaceAll(tt.message[:min(len(tt.message), 20)], "/", " "), func(t *testing.T) {
			status, message = tt.status, tt.message
			if tt.status != 200 && !strings.HasPrefix(tt.message, "<") {
				message = fmt.Sprintf(`{"id":"some","message":%q}`, tt.message)
			}
			_, err := p.Create(t.Context(), spec("data"))
			wantErr(t, err, tt.class, tt.words...)
			if len(err.Error()) > 500 {
				t.Errorf("error has %d letters", len(err.Error()))
			}
		})
	}
}

// TestThrottled: too many requests are made again when DigitalOcean says so, and no sooner.
func TestThrottled(t *testing.T) {
	for name, h := range map[string]http.Header{
		"Retry-After":     {"Retry-After": {"30"}},
		"RateLimit-Reset": {"Ratelimit-Reset": {strconv.FormatInt(time.Now().Add(30*time.Second).Unix(), 10)}},
	} {
		if after := retryAfter(h); after < 28*time.Second || after > 31*time.Second {
			t.Errorf("%s: it is asked again after %s", name, after)
		}
	}
	c := newCloud(t, do.Config{Hourly: 3, Burst: -1})
	p := c.open(t, c.pool(), "")
	var warned []int
	p.warn = func(_ context.Context, left, limit int, _ time.Time) { warned = append(warned, left, limit) }
	for range 3 {
		if _, err := p.List(t.Context(), block.Query{Namespace: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(warned, []int{0, 3}) {
		t.Errorf("what was left when it was warned: %v", warned)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := p.List(ctx, block.Query{Namespace: "test"})
	if err == nil || time.Since(began) > 10*time.Second {
		t.Fatalf("error is %v after %s", err, time.Since(began))
	}
	if n := c.Calls.Counts()["volumes.list"].Throttled; n != 1 {
		t.Errorf("it was refused %d times in a moment", n)
	}
}

// TestNoAnswer: what does not answer is told as such, and no call outlives its context.
func TestNoAnswer(t *testing.T) {
	c := newCloud(t, still())
	conf := c.pool()
	conf.Endpoint = "http://127.0.0.1:1"
	_, err := c.open(t, conf, "").List(t.Context(), block.Query{})
	wantErr(t, err, errdefs.ErrUnavailable, "refused", "volumes.list", "is endpoint right?")
	c.Calls.Add(fake.Fault{What: "hang", Times: 1})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := c.open(t, c.pool(), "").List(ctx, block.Query{}); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("error is %v", err)
	}
	_, err = c.open(t, c.pool(), "http://127.0.0.1:1").Self(t.Context())
	wantErr(t, err, errdefs.ErrUnavailable, "metadata", "droplet and region")
	wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"instance":"i-1"}`) }))
	t.Cleanup(wrong.Close)
	_, err = c.open(t, c.pool(), wrong.URL).Self(t.Context())
	wantErr(t, err, errdefs.ErrUnavailable, "metadata")
	s := spec("data")
	s.Zone = ""
	_, err = c.open(t, c.pool(), wrong.URL).Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrUnavailable, "-o zone=", "region")
}

// TestWrongCredentials: the token is wrong, may only read, or is another one meanwhile.
func TestWrongCredentials(t *testing.T) {
	c := newCloud(t, still())
	conf := c.pool()
	conf.Token = catalog.NewSecret("dop_v1_wrong")
	_, err := c.open(t, conf, "").List(t.Context(), block.Query{})
	wantErr(t, err, errdefs.ErrDenied, "401", "expired")
	if strings.Contains(err.Error(), "dop_v1_wrong") {
		t.Errorf("error shows the token: %v", err)
	}
	conf.Token = catalog.NewSecret("reader")
	p := c.open(t, conf, "")
	if _, err := p.List(t.Context(), block.Query{}); err != nil {
		t.Error(err)
	}
	_, err = p.Create(t.Context(), spec("data"))
	wantErr(t, err, errdefs.ErrDenied, "403", "scopes")
}

// TestQuotas: the limits of an account and of a droplet are told as such.
func TestQuotas(t *testing.T) {
	conf := still()
	conf.VolumeLimit = 9
	c := newCloud(t, conf)
	id, _, metadata := c.droplet(t, nyc)
	p := c.open(t, c.pool(), metadata)
	self := block.Host{ID: strconv.Itoa(id), Zone: nyc}
	for i := range 9 {
		d, err := p.Create(t.Context(), spec(fmt.Sprint("v", i)))
		if err != nil {
			t.Fatal(err)
		}
		err = p.Attach(t.Context(), d, self)
		if i < 7 && err != nil {
			t.Fatal(err)
		}
		if i >= 7 {
			wantErr(t, err, errdefs.ErrInvalid, "droplet 1", "7 in most plans", "another droplet")
		}
	}
	_, err := p.Create(t.Context(), spec("more"))
	wantErr(t, err, errdefs.ErrInvalid, "limit", "support")
}

// TestWrongRegion: a disk is used in its own region, and the error names both.
func TestWrongRegion(t *testing.T) {
	c := newCloud(t, still())
	id, _, metadata := c.droplet(t, nyc)
	p := c.open(t, c.pool(), metadata)
	s := spec("data")
	s.Zone = "fra1"
	d, err := p.Create(t.Context(), s)
	if err != nil || d.Zone != "fra1" {
		t.Fatalf("made in %q, %v", d.Zone, err)
	}
	wantErr(t, p.Attach(t.Context(), d, block.Host{ID: strconv.Itoa(id), Zone: nyc}), errdefs.ErrInvalid, "fra1", nyc, "region of the disk")
	s = spec("other")
	s.Zone = "xyz9"
	_, err = p.Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrInvalid, "xyz9", "region list")
	wantErr(t, p.Attach(t.Context(), d, block.Host{ID: "99"}), errdefs.ErrDenied, "99", "team")
	wantErr(t, p.Attach(t.Context(), block.Disk{ID: "none"}, block.Host{ID: strconv.Itoa(id)}), errdefs.ErrNotFound)
	snap, _, err := c.sdk(t).Storage.CreateSnapshot(t.Context(), &godo.SnapshotCreateRequest{VolumeID: d.ID, Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	s = spec("copy")
	s.Snapshot = &block.Snapshot{ID: snap.ID}
	_, err = p.Create(t.Context(), s)
	wantErr(t, err, errdefs.ErrInvalid, "fra1", nyc, "remora backup create")
}
