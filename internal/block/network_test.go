package block

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// certificate is one of a name, that ends at a time.
func certificate(t *testing.T, name string, end time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: end.Add(-time.Hour), NotAfter: end, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestUnanswered: whatever keeps a request from being answered, a person is told what to look at.
func TestUnanswered(t *testing.T) {
	serve := func(c tls.Certificate, trusted bool) *http.Client {
		t.Helper()
		pool := x509.NewCertPool()
		if trusted {
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			pool.AddCert(leaf)
		}
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
			},
			TLSClientConfig: &tls.Config{RootCAs: pool},
		}}
	}
	fails := func(err error) *http.Client {
		return &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, err })}
	}
	refuses := func(number syscall.Errno) *http.Client {
		return fails(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", number)})
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	proxy, err := url.Parse("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		what   string
		url    string
		client *http.Client
		words  []string
	}{
		{"nobody listens", "http://127.0.0.1:1", http.DefaultClient, []string{"connection refused", "is endpoint right?"}},
		{"no such host", "http://no-such-host.invalid", fails(&net.DNSError{Name: "no-such-host.invalid", IsNotFound: true}), []string{"there is no host no-such-host.invalid", "region"}},
		{"no name server", "http://some.example", fails(&net.DNSError{Name: "some.example", Err: "server misbehaving", IsTemporary: true}), []string{"server misbehaving", "resolv.conf"}},
		{"no route", "http://192.0.2.1", refuses(syscall.ENETUNREACH), []string{"unreachable", "route", "a NAT"}},
		{"no host", "http://192.0.2.1", refuses(syscall.EHOSTUNREACH), []string{"route", "a NAT"}},
		{"a connection that is cut", "http://some.example", fails(io.ErrUnexpectedEOF), []string{"unexpected EOF", "firewall"}},
		{"a connection that is reset", "http://some.example", refuses(syscall.ECONNRESET), []string{"reset", "firewall"}},
		{"no answer in time", "http://" + silent.Addr().String(), &http.Client{Timeout: 50 * time.Millisecond}, []string{"route", "firewall"}},
		{"a proxy that is away", "http://some.example", &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}}, []string{"HTTPS_PROXY"}},
		{"nobody's certificate", "https://api.example", serve(certificate(t, "api.example", soon), false), []string{"certificate", "authority", "proxy"}},
		{"another's certificate", "https://api.example", serve(certificate(t, "other.example", soon), true), []string{"other.example", "is endpoint right?"}},
		{"an old certificate", "https://api.example", serve(certificate(t, "api.example", time.Now().Add(-time.Hour)), true), []string{"expired", "clock"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tt.client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s: answered %d", tt.what, resp.StatusCode)
			continue
		}
		err = Unanswered("List in here", "a NAT", err)
		all := err.Error() + " | " + strings.Join(errdefs.Hints(err), " | ")
		if !errors.Is(err, errdefs.ErrUnavailable) || len(errdefs.Hints(err)) != 1 || strings.Contains(all, "\n") {
			t.Errorf("%s: %s", tt.what, all)
		}
		for _, w := range append(tt.words, "List in here: ") {
			if !strings.Contains(all, w) {
				t.Errorf("%s: it is not said %q: %s", tt.what, w, all)
			}
		}
	}
}

// TestSkew: a clock that is off is told by how much, one that is nearly right is not.
func TestSkew(t *testing.T) {
	for _, tt := range []struct {
		off  time.Duration
		want string
	}{
		{10 * time.Minute, "behind the cloud's"}, {-10 * time.Minute, "ahead of the cloud's"}, {20 * time.Second, ""}, {-20 * time.Second, ""},
	} {
		h := http.Header{"Date": {time.Now().Add(tt.off).UTC().Format(http.TimeFormat)}}
		got := Skew(h)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q", tt.off, got)
		}
	}
	if got := Skew(http.Header{}); got != "" {
		t.Errorf("without a date: %q", got)
	}
}
