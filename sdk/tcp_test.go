package sdk

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// authority signs certificates, and writes them where a server looks for them.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// sign makes NAME.pem and NAME-key.pem.
func (a *authority) sign(t *testing.T, name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: pkcs},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// server signs a certificate for this host and returns the files of a listener.
func (a *authority) server(t *testing.T) *ServerTLS {
	t.Helper()
	a.sign(t, "server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return &ServerTLS{CAFile: a.file("ca.pem"), CertFile: a.file("server.pem"), KeyFile: a.file("server-key.pem")}
}

// client signs a certificate for a caller that trusts trusted.
func (a *authority) client(t *testing.T, trusted *authority) *tls.Config {
	t.Helper()
	cert, key := a.sign(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pool := x509.NewCertPool()
	pool.AddCert(trusted.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
	}
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	l, err := ListenTCP(TCPSocket{Addr: "127.0.0.1:0", TLS: ours.server(t)})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, Options{}, l, volumes())
	url := "https://" + l.Addr().String() + "/VolumeDriver.List"
	good := ours.client(t, ours)
	nameless := good.Clone()
	nameless.Certificates = nil
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 //nolint:gosec // to be refused
	for _, tt := range []struct {
		name string
		conf *tls.Config
		ok   bool
	}{
		{"own certificate", good, true},
		{"no certificate", nameless, false},
		{"certificate of another CA", theirs.client(t, ours), false},
		{"caller trusts another CA", ours.client(t, theirs), false},
		{"TLS 1.1", old, false},
	} {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: tt.conf, DisableKeepAlives: true}}
		status, body, err := call(t, c, url)
		if (err == nil && status == http.StatusOK) != tt.ok {
			t.Errorf("%s: %d %q, %v", tt.name, status, body, err)
		}
	}
	// Plain HTTP is told so, and not served.
	if status, body, err := call(t, http.DefaultClient, "http://"+l.Addr().String()+"/VolumeDriver.List"); err == nil && status == http.StatusOK {
		t.Errorf("without TLS: %d %q", status, body)
	}
}

func TestTCPWithoutTLS(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "[::ffff:127.0.0.1]:0": true, "127.9.9.9:0": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false, "example.com:0": false, "127.0.0.1": false, "": false,
		"localhost.example.com:0": false, "[::ffff:192.0.2.1]:0": false,
	} {
		l, err := ListenTCP(TCPSocket{Addr: addr})
		switch {
		case err == nil:
			if err := l.Close(); err != nil || !ok {
				t.Errorf("%q is listened on without TLS: %v", addr, err)
			}
		case ok:
			t.Errorf("%q: %v", addr, err)
		case !errors.Is(err, errdefs.ErrDenied) || len(errdefs.Hints(err)) == 0:
			t.Errorf("%q: %v, hints %q", addr, err, errdefs.Hints(err))
		}
	}
	l, err := ListenTCP(TCPSocket{Addr: ":0", Insecure: true})
	if err != nil {
		t.Fatalf("forced: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestTLSFilesThatAreRefused(t *testing.T) {
	a := newAuthority(t)
	good := *a.server(t)
	other := newAuthority(t)
	other.sign(t, "server", &x509.Certificate{})
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(s *ServerTLS){
		"no CA":           func(s *ServerTLS) { s.CAFile = "" },
		"no certificate":  func(s *ServerTLS) { s.CertFile = "" },
		"no key":          func(s *ServerTLS) { s.KeyFile = "" },
		"absent CA":       func(s *ServerTLS) { s.CAFile = garbage + "x" },
		"garbage CA":      func(s *ServerTLS) { s.CAFile = garbage },
		"garbage key":     func(s *ServerTLS) { s.KeyFile = garbage },
		"key of another":  func(s *ServerTLS) { s.KeyFile = other.file("server-key.pem") },
		"certificate, CA": func(s *ServerTLS) { s.CertFile = s.KeyFile },
	} {
		s := good
		change(&s)
		l, err := ListenTCP(TCPSocket{Addr: "127.0.0.1:0", TLS: &s})
		if err == nil {
			t.Errorf("%s: listens: %v", name, l.Close())
		} else if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "tls") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnnouncedListener(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	show := &ClientTLS{CAFile: a.file("ca.pem"), CertFile: "/c", KeyFile: "/k"}
	for _, tt := range []struct {
		name   string
		socket TCPSocket
		file   string
		want   []string
	}{
		{"spec", TCPSocket{Name: "p"}, "p.spec", []string{"tcp://127.0.0.1:"}},
		{"json", TCPSocket{Name: "q", TLS: a.server(t), Announce: Announcement{TLS: show}}, "q.json", []string{`"Addr": "https://127.0.0.1:`, `"CAFile": "` + show.CAFile}},
		{"other address", TCPSocket{Name: "r", Announce: Announcement{Addr: "tcp://plugin.example:80"}}, "r.spec", []string{"tcp://plugin.example:80\n"}},
	} {
		tt.socket.Addr, tt.socket.Announce.Dir = "127.0.0.1:0", dir
		l, err := ListenTCP(tt.socket)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		b, err := os.ReadFile(filepath.Join(dir, tt.file))
		for _, want := range tt.want {
			if err != nil || !strings.Contains(string(b), want) {
				t.Errorf("%s: announced as %q, %v, want %q in it", tt.name, b, err, want)
			}
		}
		for range 2 {
			if err := l.Close(); err != nil {
				t.Errorf("%s: Close: %v", tt.name, err)
			}
		}
	}
	onlyHas(t, dir)
	// An announcement that cannot be made leaves no listener.
	_, err := ListenTCP(TCPSocket{Addr: "127.0.0.1:0", Name: "a/b", Announce: Announcement{Dir: dir}})
	if !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("announced as a/b: %v", err)
	}
	// Nor is one made with which no engine gets in.
	l, err := ListenTCP(TCPSocket{Addr: "127.0.0.1:0", Name: "p", TLS: a.server(t), Announce: Announcement{Dir: dir}})
	if err == nil {
		_ = l.Close()
	}
	if !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("TLS announced without what an engine needs: %v", err)
	}
	onlyHas(t, dir)
}

// An address that stands for every address is one to listen on, not one to call.
func TestUnspecifiedAddressIsNotAnnounced(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	server, show := a.server(t), &ClientTLS{CAFile: a.file("ca.pem")}
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"} {
		for _, s := range []TCPSocket{
			{Addr: addr, Name: "p", TLS: server, Announce: Announcement{TLS: show, Dir: dir}},
			{Addr: addr, Name: "p", Insecure: true, Announce: Announcement{Dir: dir}},
		} {
			l, err := ListenTCP(s)
			if err == nil {
				_ = l.Close()
			}
			if !errors.Is(err, errdefs.ErrInvalid) || len(errdefs.Hints(err)) == 0 || !strings.Contains(err.Error(), addr) {
				t.Errorf("%s: %v, hints %q", addr, err, errdefs.Hints(err))
			}
		}
	}
	onlyHas(t, dir)
	// It may be listened on unannounced, or announced by another address.
	for _, s := range []TCPSocket{
		{Addr: ":0", TLS: server},
		{Addr: ":0", Name: "p", TLS: server, Announce: Announcement{Addr: "https://plugin.example:8443", TLS: show, Dir: dir}},
	} {
		l, err := ListenTCP(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	onlyHas(t, dir)
}

// An engine over TCP hangs up like any other.
func TestAnnouncementGoesWithTheServer(t *testing.T) {
	dir := t.TempDir()
	l, err := ListenTCP(TCPSocket{Addr: "127.0.0.1:0", Name: "p", Announce: Announcement{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Serve(ctx, l, volumes()); err != nil {
		t.Error(err)
	}
	onlyHas(t, dir)
}
