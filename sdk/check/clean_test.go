package check_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
)

// TestNamelessRequests: a plugin that takes no name for the directory of all volumes loses
// nobody's to the cases which send none.
func TestNamelessRequests(t *testing.T) {
	t.Parallel()
	ep := serve(t, newStore(t, "takes no name for all"))
	c, err := client.New(ep, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Volume().Create(t.Context(), "data", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := check.Run(t.Context(), ep, check.Options{Only: []string{"volume/empty-body", "volume/not-json"}}); err != nil {
		t.Fatal(err)
	}
	listed(t, c, "data")
}

// TestMountOfTheHost: what was mounted before a run is mounted after it, also where a plugin
// hands it out.
func TestMountOfTheHost(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	m := newStore(t, "")
	right := m.call
	m.call = func(method string, req object) (any, error) {
		answer, err := right(method, req)
		if method == "VolumeDriver.Mount" && err == nil {
			return object{"Mountpoint": dir}, nil
		}
		return answer, err
	}
	r, err := check.Run(t.Context(), serve(t, m), check.Options{Only: []string{"volume/engine-lost-mount"}})
	if err != nil || r.Count(check.Skipped) != 1 {
		t.Errorf("%v, %+v", err, r)
	}
	if !mounted(dir) {
		t.Error("the host's own mount is gone")
	}
}

// TestLeft: what a plugin keeps is reported, whatever it says.
func TestLeft(t *testing.T) {
	t.Parallel()
	for id, m := range map[string]*model{
		"volume/get-exact":     newStore(t, "keeps volumes"),
		"volume/remove-one":    newStore(t, "keeps volumes"),
		"network/capabilities": newFabric(t, "keeps networks"),
		"network/external":     newFabric(t, "keeps networks"),
		"ipam/named-pool":      newPools(t, "keeps pools"),
	} {
		r, err := check.Run(t.Context(), serve(t, m), check.Options{Only: []string{id}})
		if made := id != "network/capabilities"; err != nil || len(r.Left()) > 0 != made {
			t.Errorf("%s: left %q, %v", id, r.Left(), err)
		}
	}
}

// TestInterruptedWithoutAnswer: a call that has no answer does not outlive the grace.
func TestInterruptedWithoutAnswer(t *testing.T) {
	t.Parallel()
	m := newStore(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	right, over := m.call, make(chan struct{})
	t.Cleanup(func() { close(over) })
	m.call = func(method string, req object) (any, error) {
		if method == "VolumeDriver.Capabilities" {
			cancel()
			<-over
		}
		return right(method, req)
	}
	// The case makes its calls on connections of its own.
	start := time.Now()
	r, err := check.Run(ctx, serve(t, m), check.Options{Only: []string{"volume/list-any-body"}, Grace: -1})
	if err != nil || !r.Interrupted || r.Count(check.Skipped) != 1 || time.Since(start) > 30*time.Second {
		t.Errorf("%v after %s: %+v", err, time.Since(start), r)
	}
}

// TestHangs: a plugin that is activated and answers nothing else is not asked all there is.
func TestHangs(t *testing.T) {
	t.Parallel()
	m := newStore(t, "")
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	m.call = func(string, object) (any, error) {
		<-over
		return object{}, nil
	}
	r, err := check.Run(t.Context(), serve(t, m), check.Options{Only: []string{"volume/"}, Timeout: 100 * time.Millisecond})
	if err != nil || r.Count(check.Broken) != 1 || r.Verdict != check.IsBroken {
		t.Errorf("%v: %s", err, r.Summary())
	}
}

// TestNonsense: a plugin whose answers cannot be read is not waited for.
func TestNonsense(t *testing.T) {
	t.Parallel()
	m := newStore(t, "")
	m.call = func(string, object) (any, error) { return "<html>", nil }
	start := time.Now()
	r, err := check.Run(t.Context(), serve(t, m), check.Options{Only: []string{"volume/get-exact", "volume/create-twice"}})
	if err != nil || r.Count(check.Broken) != 2 || time.Since(start) > 15*time.Second {
		t.Errorf("%v after %s: %s", err, time.Since(start), r.Summary())
	}
}

// TestEvidence: what is shown is the call that failed, also among others.
func TestEvidence(t *testing.T) {
	t.Parallel()
	r, err := check.Run(t.Context(), serve(t, newStore(t, "8 at once")), check.Options{Only: []string{"plugin/calls-at-once"}})
	if err != nil || len(r.Failed()) != 1 {
		t.Fatalf("%v, %+v", err, r)
	}
	for i, e := range r.Failed()[0].Evidence {
		if e.Status != http.StatusServiceUnavailable {
			t.Errorf("%q: %+v", r.Failed()[0].Reasons[i], e)
		}
	}
}

// TestVirtualHost: over TCP a request names the host of the address, as an engine's does, or
// it would come to another server there.
func TestVirtualHost(t *testing.T) {
	t.Parallel()
	m := newStore(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != l.Addr().String() {
			http.Error(w, "no such site", http.StatusMisdirectedRequest)
			return
		}
		m.ServeHTTP(w, r)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	ep := client.Endpoint{Name: "model", Addr: "tcp://" + l.Addr().String()}
	r, err := check.Run(t.Context(), ep, check.Options{Only: []string{"plugin/", "volume/list-any-body"}})
	if err != nil || r.Verdict != check.Conforms {
		t.Errorf("%v, %+v", err, r.Failed())
	}
}

// TestStrangersText: what a plugin says does not move the cursor, nor break a line.
func TestStrangersText(t *testing.T) {
	t.Parallel()
	m := newStore(t, "")
	m.call = func(string, object) (any, error) {
		return nil, failure{http.StatusInternalServerError, "\x1b[2Jpass\r\n\x00"}
	}
	r, err := check.Run(t.Context(), serve(t, m), check.Options{Only: []string{"volume/lifecycle", "volume/errors"}, Skip: map[string]string{"volume/errors": "two\nlines"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range check.Formats {
		var b strings.Builder
		if err := r.Write(&b, format); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(b.String(), "\x1b\x00\r") || format == "tap" && strings.Contains(b.String(), "\nlines") {
			t.Errorf("%s: %q", format, b.String())
		}
	}
}

// TestSecretAtTheEnd: where a long request is cut, no part of a secret shows.
func TestSecretAtTheEnd(t *testing.T) {
	t.Parallel()
	const password = "correct-horse-battery-staple"
	m := newStore(t, "creates once")
	r, err := check.Run(t.Context(), serve(t, m), check.Options{
		Only: []string{"volume/create-twice"}, Create: map[string]string{"a": strings.Repeat("x", 915), "password": password},
	})
	if err != nil || len(r.Failed()) != 1 {
		t.Fatalf("%v, %+v", err, r)
	}
	for _, e := range r.Failed()[0].Evidence {
		if strings.Contains(e.Request, password[:8]) {
			t.Errorf("%s", e.Request)
		}
	}
}
