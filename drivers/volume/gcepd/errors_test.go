package gcepd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

// TestReasons: each reason of Google has a class, and is told with where it was and what to do.
func TestReasons(t *testing.T) {
	c := newCloud(t, quick())
	for _, tt := range []struct {
		status       int
		reason, text string
		class        error
		words        []string
	}{
		{404, "notFound", "The resource was not found", errdefs.ErrNotFound, nil},
		{409, "alreadyExists", "already exists", errdefs.ErrExists, nil},
		{400, "resourceInUseByAnotherResource", "in use", errdefs.ErrInUse, nil},
		{400, "resourceNotReady", "not ready", errdefs.ErrInUse, nil},
		{400, "invalid", "Invalid value for field 'zone': 'us-moon1-a'. Unknown zone.", errdefs.ErrInvalid, []string{"zones list"}},
		{400, "invalid", "Cloud KMS error when using key", errdefs.ErrInvalid, []string{"KMS", "cryptoKeyEncrypterDecrypter"}},
		{403, "quotaExceeded", "Quota 'SSD_TOTAL_GB' exceeded.", errdefs.ErrInvalid, []string{"SSD_TOTAL_GB", "larger quota"}},
		{403, "ssdTotalStorageQuotaExceeded", "no", errdefs.ErrInvalid, []string{"larger quota"}},
		{400, "limitExceeded", "Exceeded limit 'maximum_persistent_disks'", errdefs.ErrInvalid, []string{"machine type"}},
		{403, "forbidden", "Required 'compute.disks.create' permission", errdefs.ErrDenied, []string{"compute.disks.create", "permissions"}},
		{403, "insufficientPermissions", "scopes", errdefs.ErrDenied, []string{"access scope"}},
		{403, "accessNotConfigured", "API has not been used", errdefs.ErrDenied, []string{"services enable"}},
		{401, "authError", "Invalid Credentials", errdefs.ErrDenied, []string{"clock"}},
		{503, "backendError", "Backend Error", errdefs.ErrUnavailable, []string{"status.cloud.google.com"}},
		{500, "never heard of", "Oh", errdefs.ErrUnavailable, nil},
		{400, "never heard of", "Oh", errdefs.ErrInvalid, nil},
		{502, "", "", errdefs.ErrUnavailable, nil},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			if tt.reason != "" {
				fmt.Fprintf(w, `{"error":{"code":%d,"message":%q,"errors":[{"reason":%q,"message":%q}]}}`, tt.status, tt.text, tt.reason, tt.text)
			} else {
				fmt.Fprint(w, "<html>\nof a proxy")
			}
		}))
		conf := c.pool()
		conf.Endpoint = s.URL
		_, err := c.open(t, conf, "").one(t.Context(), zoneA+"/d")
		wantErr(t, tt.reason, err, tt.class, append(tt.words, "disks.get in zone us-central1-a of project fake-project", tt.reason)...)
		s.Close()
	}
}

// TestOperationErrors: an operation that ends in an error says so in its own spelling.
func TestOperationErrors(t *testing.T) {
	p := &provider{t: block.Traits{Scope: "project p"}}
	for code, class := range map[string]error{
		"RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": errdefs.ErrInUse, "QUOTA_EXCEEDED": errdefs.ErrInvalid, "ZONE_RESOURCE_POOL_EXHAUSTED": errdefs.ErrUnavailable,
		"RESOURCE_NOT_FOUND": errdefs.ErrNotFound, "INTERNAL_ERROR": errdefs.ErrUnavailable, "UNSUPPORTED_OPERATION": errdefs.ErrUnsupported,
	} {
		err := p.failure(&compute.Operation{OperationType: "insert", Zone: "x/zones/us-central1-a", Error: &compute.OperationError{Errors: []*compute.OperationErrorErrors{{Code: code, Message: "Text."}}}})
		wantErr(t, code, err, class, "insert in zone us-central1-a of project p", "Text.")
	}
}

// TestThrottled: a request that Google has no room for is made again when there is.
func TestThrottled(t *testing.T) {
	c := newCloud(t, quick())
	p := c.here(t)
	c.Calls.Add(fake.Fault{Call: "disks.aggregatedList", What: fake.Throttle, Times: 1})
	if _, err := p.List(t.Context(), block.Query{Namespace: "remora"}); err != nil {
		t.Fatal(err)
	}
	if n := c.Calls.Counts()["disks.aggregatedList"]; n.Calls != 2 || n.Throttled != 1 {
		t.Errorf("asked %+v", n)
	}
	err := p.explain(t.Context(), "op", "zone z", errors.New("none of Google's"))
	wantErr(t, "no answer", err, errdefs.ErrUnavailable, "op in zone z")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c.Calls.Add(fake.Fault{Call: "disks.get", What: fake.Hang, Times: 1})
	began := time.Now()
	if _, err := p.one(ctx, zoneA+"/d"); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("a call that hangs: %v, after %s", err, time.Since(began))
	}
}

// TestCredentials: where they are taken from, and what is said of wrong ones.
func TestCredentials(t *testing.T) {
	c := newCloud(t, quick())
	_, _, good := c.instance(t, zoneA, compute.ComputeScope)
	_, _, readOnly := c.instance(t, zoneA, compute.ComputeReadonlyScope)
	_, _, none := c.instance(t, zoneA)
	use := func(p *provider) error {
		if _, err := p.List(t.Context(), block.Query{Namespace: "remora"}); err != nil {
			return err
		}
		return p.Resize(t.Context(), block.Disk{ID: zoneA + "/none"}, 20*gib)
	}
	pool := c.pool()
	pool.Keyfile = ""
	keyless := func(metadata string) *provider { return c.open(t, pool, metadata) }

	wantErr(t, "the instance's account", use(keyless(good)), errdefs.ErrNotFound, "disks/none")
	wantErr(t, "an account that may only look", use(keyless(readOnly)), errdefs.ErrDenied, "access scope")
	wantErr(t, "no account", use(keyless(none)), errdefs.ErrDenied, "no keyfile", "give the pool a keyfile")

	p := keyless(good)
	if _, err := p.List(t.Context(), block.Query{}); err != nil {
		t.Fatal(err)
	}
	c.Revoke()
	if _, err := p.List(t.Context(), block.Query{}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("with a token that is good no more: %v", err)
	}
	wantErr(t, "with a new token", use(p), errdefs.ErrNotFound)

	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", c.keyfile)
	wantErr(t, "GOOGLE_APPLICATION_CREDENTIALS", use(keyless(none)), errdefs.ErrNotFound, "disks/none")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("GCEPD_KEYFILE", c.keyfile)
	wantErr(t, "GCEPD_KEYFILE", use(keyless(none)), errdefs.ErrNotFound, "disks/none")
	t.Setenv("GCEPD_KEYFILE", "")

	// A key that was deleted at Google: another cloud's.
	other := newCloud(t, quick())
	key, err := os.ReadFile(other.keyfile)
	if err != nil {
		t.Fatal(err)
	}
	wrong := c.pool()
	if err := os.WriteFile(wrong.Keyfile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	err = use(c.open(t, wrong, none))
	wantErr(t, "a key that is no more", err, errdefs.ErrDenied, "keys list")
	if strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("the key is in %v", err)
	}
	if _, err := connect(t.Context(), config{Type: standardType, Config: pool.Config}, nil, "127.0.0.1:1"); !errors.Is(err, errdefs.ErrUnavailable) || len(errdefs.Hints(err)) == 0 {
		t.Errorf("no project, and no metadata server: %v", err)
	}
}

// TestClock: who is refused with a clock that is off is told so, by Compute Engine and by who gives tokens.
func TestClock(t *testing.T) {
	c := newCloud(t, quick())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"code":401,"message":"Invalid Credentials","errors":[{"reason":"authError","message":"Invalid Credentials"}]}}`)
	}))
	t.Cleanup(s.Close)
	pool := c.pool()
	pool.Endpoint = s.URL
	_, err := c.open(t, pool, "").one(t.Context(), zoneA+"/d")
	wantErr(t, "Compute Engine", err, errdefs.ErrDenied, "the clock of this host is 1h", "ahead")
	pool.Endpoint = "http://127.0.0.1:1"
	_, err = c.here(t).one(t.Context(), zoneA+"/d")
	wantErr(t, "a clock that is right", err, errdefs.ErrNotFound)
	_, err = c.open(t, pool, "").one(t.Context(), zoneA+"/d")
	wantErr(t, "no answer", err, errdefs.ErrUnavailable, "connection refused", "is endpoint right?")
}

// TestSelf: which instance this is, and whose it is.
func TestSelf(t *testing.T) {
	c := newCloud(t, quick())
	name, _, metadata := c.instance(t, zoneB)
	pool := c.pool()
	if h, err := c.open(t, pool, metadata).Self(t.Context()); err != nil || h.ID != zoneB+"/"+name || h.Zone != zoneB {
		t.Errorf("%+v %v", h, err)
	}
	pool.Project = "other-project"
	_, err := c.open(t, pool, metadata).Self(t.Context())
	wantErr(t, "another project", err, errdefs.ErrInvalid, "fake-project", "other-project")
	pool = c.pool()
	_, err = c.open(t, pool, "127.0.0.1:1").Self(t.Context())
	wantErr(t, "no metadata server", err, errdefs.ErrUnavailable, "instance")
	pool.Zone, pool.Instance = zoneC, "me"
	if h, err := c.open(t, pool, "127.0.0.1:1").Self(t.Context()); err != nil || h.ID != zoneC+"/me" || h.Zone != zoneC {
		t.Errorf("by the pool: %+v %v", h, err)
	}
}
