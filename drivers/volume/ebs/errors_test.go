package ebs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/block/blocktest"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/test/cloud/ec2"
)

// wantErr is [blocktest.WantErr] with what is secret here.
func wantErr(t *testing.T, err, class error, words ...string) {
	t.Helper()
	blocktest.WantErr(t, err, class, secretKey, words...)
}

func spec(name string) block.Spec {
	id := "00000000-0000-8000-8000-" + (fmt.Sprintf("%x", name) + "000000000000")[:12]
	return block.Spec{
		UUID: id, Size: gib, Zone: east + "a", Type: "gp3",
		Tags: block.Tags{block.TagUUID: id, block.TagNamespace: "test", block.TagName: name},
	}
}

// TestErrorsOfEC2 has each code that EC2 may refuse with come out as its class, with the region and
// what to do.
func TestErrorsOfEC2(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	p := c.open(t, c.pool(), "")
	for _, tt := range []struct {
		code  string
		class error
		words []string
	}{
		{"UnauthorizedOperation", errdefs.ErrDenied, []string{"CreateVolume", "policy"}},
		{"AuthFailure", errdefs.ErrDenied, []string{"credentials"}},
		{"OptInRequired", errdefs.ErrDenied, []string{"enable the region"}},
		{"PendingVerification", errdefs.ErrDenied, nil},
		{"VolumeLimitExceeded", errdefs.ErrInvalid, []string{"quota"}},
		{"MaxIOPSLimitExceeded", errdefs.ErrInvalid, []string{"quota"}},
		{"SomeNewLimitExceeded", errdefs.ErrInvalid, []string{"quota"}},
		{"InvalidParameterValue", errdefs.ErrInvalid, nil},
		{"InvalidParameterCombination", errdefs.ErrInvalid, nil},
		{"TagLimitExceeded", errdefs.ErrInvalid, []string{"50 tags"}},
		{"InvalidZone.NotFound", errdefs.ErrInvalid, []string{east + "a", "describe-availability-zones"}},
		{"InvalidKmsKey.InvalidState", errdefs.ErrInvalid, []string{"key of KMS"}},
		{"InsufficientVolumeCapacity", errdefs.ErrUnavailable, []string{"another type or zone"}},
		{"InternalError", errdefs.ErrUnavailable, nil},
		{"UnsupportedOperation", errdefs.ErrUnsupported, nil},
		{"VolumeInUse", errdefs.ErrInUse, nil},
		{"NobodyHasHeardOfThis", errdefs.ErrInvalid, nil},
	} {
		t.Run(tt.code, func(t *testing.T) {
			fault := ec2.Fault{Kind: ec2.Refuse, Action: "CreateVolume", Code: tt.code, Message: "That is so. Encoded authorization failure message: AAAA", Count: 1}
			if tt.code == "InternalError" {
				fault = ec2.Fault{Kind: ec2.FailBefore, Action: "CreateVolume", Count: 1}
			}
			c.Break(fault)
			_, err := p.Create(t.Context(), spec("data"))
			wantErr(t, err, tt.class, append(tt.words, "region "+east)...)
			if strings.Contains(err.Error(), "AAAA") {
				t.Errorf("error holds what nobody can read: %v", err)
			}
		})
	}
}

// TestWrongCredentials has keys that are wrong in every way, none of which is shown.
func TestWrongCredentials(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	for _, tt := range []struct {
		what   string
		change func(*config)
	}{
		{"secret", func(c *config) { c.SecretKey = catalog.NewSecret(secretKey + "x") }},
		{"key", func(c *config) { c.AccessKey = "AKIANOBODY" }},
		{"token", func(c *config) { c.SessionToken = catalog.NewSecret(secretKey + "token") }},
		{"region", func(c *config) { c.Region = "ap-south-1" }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			conf := c.pool()
			tt.change(&conf)
			p := c.open(t, conf, "")
			_, err := p.List(t.Context(), block.Query{Namespace: "test"})
			wantErr(t, err, errdefs.ErrDenied, "DescribeVolumes", "region", "credentials are wrong")
		})
	}
}

// TestNoAnswer: what does not answer is told at once, and what hangs when the caller's time is over.
func TestNoAnswer(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	conf := c.pool()
	conf.Endpoint = "http://127.0.0.1:1"
	_, err := c.open(t, conf, "").List(t.Context(), block.Query{Namespace: "test"})
	wantErr(t, err, errdefs.ErrUnavailable, "connection refused", "is endpoint right?")
	conf.Endpoint = "http://ec2.no-such-region-9.invalid"
	_, err = c.open(t, conf, "").List(t.Context(), block.Query{Namespace: "test"})
	wantErr(t, err, errdefs.ErrUnavailable)
	c.Break(ec2.Fault{Kind: ec2.Hang, For: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = c.open(t, c.pool(), "").List(ctx, block.Query{Namespace: "test"})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	c.Heal()
}

// TestClock: who is refused with a clock that is off is told so, whatever EC2 says.
func TestClock(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	for _, tt := range []struct {
		off   time.Duration
		words []string
	}{
		{-10 * time.Minute, []string{"the clock of this host is 10m", "ahead"}}, {time.Hour + 30*time.Second, []string{"the clock of this host is 1h0m", "behind"}}, {0, []string{"credentials are wrong"}},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(tt.off).UTC().Format(http.TimeFormat))
			c.ServeHTTP(w, r)
		}))
		t.Cleanup(s.Close)
		conf := c.pool()
		conf.Endpoint, conf.SecretKey = s.URL, catalog.NewSecret(secretKey+"x")
		_, err := c.open(t, conf, "").List(t.Context(), all)
		wantErr(t, err, errdefs.ErrDenied, append(tt.words, "AuthFailure")...)
		if tt.off == 0 && strings.Contains(strings.Join(errdefs.Hints(err), " "), "clock") {
			t.Errorf("a clock that is right is blamed: %q", errdefs.Hints(err))
		}
	}
}

// TestStranger: an answer of a proxy, or of the page on which to sign in to a network.
func TestStranger(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	for _, status := range []int{http.StatusOK, http.StatusBadGateway, http.StatusForbidden} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, "<html>sign in to this network</html>")
		}))
		t.Cleanup(s.Close)
		conf := c.pool()
		conf.Endpoint = s.URL
		_, err := c.open(t, conf, "").List(t.Context(), all)
		wantErr(t, err, errdefs.ErrUnavailable, "DescribeVolumes", "somebody else answers", "proxy")
	}
}

// TestCutAnswer: a connection that breaks in the middle of an answer is told as that, wherever it breaks.
func TestCutAnswer(t *testing.T) {
	c := newCloud(t, still())
	p := c.open(t, c.pool(), "")
	for i := range 20 {
		c.make(t, p, spec(fmt.Sprint("v", i)))
	}
	for _, at := range []int{0, 1, 60, 511, 512, 1000, 4096, 10000} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			whole := httptest.NewRecorder()
			c.ServeHTTP(whole, r)
			w.Header().Set("Content-Length", strconv.Itoa(whole.Body.Len()))
			_, _ = w.Write(whole.Body.Bytes()[:at])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}))
		t.Cleanup(s.Close)
		conf := c.pool()
		conf.Endpoint = s.URL
		_, err := c.open(t, conf, "").List(t.Context(), all)
		wantErr(t, err, errdefs.ErrUnavailable, "DescribeVolumes", "EOF", "the connection was cut")
	}
}

// TestThrottled: a request that is refused as one too many is made again, and counted.
func TestThrottled(t *testing.T) {
	c := newCloud(t, ec2.Config{})
	p := c.open(t, c.pool(), "")
	c.Break(ec2.Fault{Kind: ec2.Throttle, Count: 2})
	if _, err := p.List(t.Context(), block.Query{Namespace: "test"}); err != nil {
		t.Fatal(err)
	}
	if n := c.Counts()["DescribeVolumes"]; n.Calls != 3 || n.Throttled != 2 {
		t.Errorf("%+v", n)
	}
	got := map[string]int{}
	for _, n := range p.client.Counts() {
		got[n.Op+" "+n.Result] = n.N
	}
	if got["DescribeVolumes throttled"] != 2 || got["DescribeVolumes ok"] != 1 {
		t.Errorf("counts are %v", got)
	}
}
