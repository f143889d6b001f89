package ebs

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// late is a connection on which the writer goes on a while after all has been sent, as on a busy machine.
type late struct{ net.Conn }

func (l late) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	time.Sleep(30 * time.Millisecond)
	return n, err
}

// TestAnsweredEarly: the answer to a long request comes before its writer has seen that all is sent.
func TestAnsweredEarly(t *testing.T) {
	answer := strings.Repeat("<answer/>", 1<<16)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, answer[:100])
		w.(http.Flusher).Flush()
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(w, answer[100:])
	}))
	defer srv.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return late{c}, err
	}}
	defer transport.CloseIdleConnections()
	handler := smithyhttp.NewClientHandlerWithOptions(patient{&http.Client{Transport: transport}})
	for range 3 {
		r := smithyhttp.NewStackRequest().(*smithyhttp.Request)
		r.Method, r.URL.Scheme, r.URL.Host = http.MethodPost, "http", strings.TrimPrefix(srv.URL, "http://")
		r, err := r.SetStream(strings.NewReader(strings.Repeat("Filter=name&", 2000)))
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := handler.Handle(middleware.ClearStackValues(t.Context()), r)
		if err != nil {
			t.Fatal(err)
		}
		resp := out.(*smithyhttp.Response)
		got, err := io.ReadAll(resp.Body)
		if err != nil || string(got) != answer {
			t.Errorf("%d bytes of %d: %v", len(got), len(answer), err)
		}
		_ = resp.Body.Close()
	}
}
