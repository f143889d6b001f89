package registry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Whoever reads that a registry cannot be asked reads what to do about it.
func TestHints(t *testing.T) {
	hint := func(err error, text string) {
		t.Helper()
		if hints := errdefs.Hints(err); !errors.Is(err, errdefs.ErrUnavailable) || len(hints) != 1 || !strings.Contains(hints[0], text) {
			t.Errorf("hints of %v are %q, want %q", err, errdefs.Hints(err), text)
		}
	}
	l, gone := newLiar(t), httptest.NewServer(nil)
	gone.Close()
	addr := gone.Listener.Addr().String()
	_, err := client(t).Privileges(t.Context(), ref(t, addr+"/p"), Auth{})
	hint(err, "curl -v https://"+addr+"/v2/; a proxy is")
	l.has["v1"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	c := must[*Client](t)(New(Options{Stall: 300 * time.Millisecond}))
	_, err = c.Privileges(t.Context(), ref(t, l.addr+"/p:v1"), Auth{})
	hint(err, "curl -v https://"+l.addr)

	// Those on the loopback interface need no TLS, so that these are asked in another way.
	safe := httptest.NewTLSServer(nil)
	safe.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(safe.Close)
	hub := ref(t, "vieux/sshfs")
	get := func(url string) error {
		resp, err := http.Get(url)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	hint(explain(t.Context(), "doing", hub, get(safe.URL)), "trust who signed its certificate")
	hint(explain(t.Context(), "doing", hub, get("https://"+l.addr)), "it speaks no TLS")
	hint(explain(t.Context(), "doing", hub, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x"}}), "getent hosts registry-1.docker.io")
}

// A registry to which no connection comes about is told as that, after one try: another would take as long again.
func TestNoConnection(t *testing.T) {
	var dials atomic.Int32
	c := client(t)
	slow := transport()
	slow.DialContext = func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded} // as after dialTime
	}
	c.secure = &http.Client{Transport: retried(slow)}
	_, err := c.Privileges(t.Context(), ref(t, "registry.lan/p"), Auth{})
	wants(t, err, errdefs.ErrUnavailable, "dial tcp: i/o timeout")
	if n := dials.Load(); n != 1 {
		t.Errorf("it was dialed %d times", n)
	}
	// One that answers, and is busy, is asked again.
	if again, err := retryable(&http.Response{StatusCode: http.StatusServiceUnavailable}, nil); !again || err != nil {
		t.Errorf("a registry that is busy: %v, %v", again, err)
	}
}
