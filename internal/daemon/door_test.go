package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// call sends one request to the socket of a pool, on a connection of its own, as an engine
// does.
func (h *host) call(pool, method string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", h.dir+"/p/"+pool+".sock")
	}
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+method, strings.NewReader(`{"Name":"data"}`))
	h.must(err)
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it has been read
	return resp.StatusCode, string(b), err
}

// refused tells that a socket without a pool answers at once, and says nothing that an
// engine would keep.
func (h *host) refused(pool string) {
	h.t.Helper()
	start := time.Now()
	for _, method := range []string{"Plugin.Activate", "VolumeDriver.List", "VolumeDriver.Mount"} {
		status, body, err := h.call(pool, method)
		if err != nil || status != http.StatusInternalServerError || !strings.Contains(body, `"Err":"socket`) || !strings.Contains(body, "has no pool for it") {
			h.t.Errorf("%s without a pool: %d %q, %v", method, status, body, err)
		}
	}
	// To an engine an answer would mean that the volume is gone.
	if status, body, err := h.call(pool, "VolumeDriver.Get"); err == nil {
		h.t.Errorf("Get without a pool: %d %q", status, body)
	}
	if took := time.Since(start); took > patience/2 {
		h.t.Errorf("refused after %v", took)
	}
}

// activated is a socket that a test keeps as systemd does.
func (h *host) activated(name, pool string) passed {
	h.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.dir + "/p/" + pool + ".sock", Net: "unix"})
	h.must(err)
	l.SetUnlinkOnClose(false)
	h.t.Cleanup(func() { _ = l.Close() })
	f, err := l.File()
	h.must(err)
	h.t.Cleanup(func() { _ = f.Close() })
	return passed{name, f}
}

// systemd keeps a socket although its pool goes, and an engine that calls there is
// answered all the time, also in the midst of a change.
func TestSocketOutlivesItsPool(t *testing.T) {
	h := newHost(t, "[pool.b]\n")
	h.must(os.Mkdir(h.dir+"/p", 0o755))
	c := startChild(h, h.activated("a", "a"))
	h.refused("a")
	stop := make(chan struct{})
	var engines sync.WaitGroup
	for range 2 {
		engines.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, body, err := h.call("a", "Plugin.Activate")
				if err != nil || status == http.StatusOK && !strings.Contains(body, "VolumeDriver") {
					t.Errorf("activation: %d %q, %v", status, body, err)
				}
			}
		})
	}
	for i := range 5 {
		r, err := h.reload("[pool.a]\n[pool.b]\n")
		h.must(err)
		if len(r.Added) != 1 {
			t.Errorf("reload %d: %+v", i, r)
		}
		h.must(h.plugin("a").Create(t.Context(), fmt.Sprint("data", i), nil))
		r, err = h.reload("[pool.b]\n")
		h.must(err)
		if len(r.Removed) != 1 {
			t.Errorf("reload %d: %+v", i, r)
		}
		h.refused("a")
	}
	close(stop)
	engines.Wait()
	_, err := h.reload("[pool.a]\n")
	h.must(err)
	if all, err := h.plugin("a").List(t.Context()); err != nil || len(all) != 5 {
		t.Errorf("volumes are %v, %v", all, err)
	}
	c.end()
}
