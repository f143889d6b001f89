package client

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// authority is a certificate authority that lives for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test roots"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.file, _, a.key = a.write("ca", a.cert)
	return a
}

// write signs a certificate and returns the files of it and of its key.
func (a *authority) write(name string, c *x509.Certificate) (cert, key string, k *ecdsa.PrivateKey) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &k.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: kder}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key, k
}

// leaf returns a certificate for 127.0.0.1, or for another host.
func (a *authority) leaf(name string, host string) (cert, key string) {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	cert, key, _ = a.write(name, c)
	return cert, key
}

// plugin serves TLS with a certificate for host, and wants one of a's from clients. It
// returns the address without a scheme.
func (a *authority) plugin(name, host string) string {
	a.t.Helper()
	cert, err := tls.LoadX509KeyPair(a.leaf(name, host))
	if err != nil {
		a.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(a.file)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		a.t.Fatal("no roots", err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"Implements":["`+r.TLS.PeerCertificates[0].Subject.CommonName+`"]}`)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	good := ours.plugin("server", "127.0.0.1")
	otherHost := ours.plugin("other", "elsewhere.example")
	cert, key := ours.leaf("me", "client.example")
	strangerCert, strangerKey := theirs.leaf("stranger", "client.example")
	tests := []struct {
		name string
		addr string
		conf TLSConfig
		text string // of the error; empty is success
	}{
		{"mutual", good, TLSConfig{CAFile: ours.file, CertFile: cert, KeyFile: key}, ""},
		{"own roots alone, TLS 1.3", good, TLSConfig{CAFile: ours.file, CertFile: cert, KeyFile: key, ExclusiveRootPools: true, MinVersion: tls.VersionTLS13}, ""},
		{"unchecked for want of a CAFile", otherHost, TLSConfig{CertFile: cert, KeyFile: key}, ""},
		{"unchecked on demand", otherHost, TLSConfig{CAFile: theirs.file, CertFile: cert, KeyFile: key, InsecureSkipVerify: true}, ""},
		{"another authority", good, TLSConfig{CAFile: theirs.file, CertFile: cert, KeyFile: key}, "certificate signed by unknown authority"},
		{"another host's certificate", otherHost, TLSConfig{CAFile: ours.file, CertFile: cert, KeyFile: key}, "cannot validate certificate for 127.0.0.1"},
		{"no certificate of our own", good, TLSConfig{CAFile: ours.file}, "certificate required"},
		{"a stranger's certificate", good, TLSConfig{CAFile: ours.file, CertFile: strangerCert, KeyFile: strangerKey}, "tls: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec, err := json.Marshal(map[string]any{"Name": "ignored", "Addr": "https://" + tt.addr, "TLSConfig": tt.conf})
			if err != nil {
				t.Fatal(err)
			}
			dirs, _ := layout(t, map[string]string{"etc/x.json": string(spec)})
			ep, err := dirs.Find("x")
			if err != nil {
				t.Fatal(err)
			}
			c, err := New(ep, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			kinds, err := c.Activate(t.Context())
			if tt.text == "" {
				if err != nil || len(kinds) != 1 || kinds[0] != "me" {
					t.Errorf("the plugin saw %q, %v; want me", kinds, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.text) || !errors.Is(err, errdefs.ErrUnavailable) {
				t.Errorf("error %v of class %v, want unavailable with %q", err, errdefs.Class(err), tt.text)
			}
		})
	}
}

// TestPlainSchemes: TLSConfig beside tcp or http is plain HTTP to the engine, and to us.
func TestPlainSchemes(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"Implements":["`+r.URL.Path+`"]}`)
	}))
	defer s.Close()
	for _, scheme := range []string{"tcp", "http"} {
		ep := Endpoint{Name: "x", Addr: scheme + "://" + s.Listener.Addr().String() + "/below", TLS: &TLSConfig{CAFile: "no such file"}}
		if w := ep.Warnings(); len(w) != 2 {
			t.Errorf("warnings %q, want one of the path and one of TLS", w)
		}
		c, err := New(ep, Options{})
		if err != nil {
			t.Fatal(err)
		}
		kinds, err := c.Activate(t.Context())
		if err != nil || kinds[0] != "/Plugin.Activate" {
			t.Errorf("%s: %q, %v", scheme, kinds, err)
		}
		c.Close()
	}
}

func TestTLSConfigIsChecked(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.leaf("me", "x")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		conf  TLSConfig
		class error
		text  string
	}{
		{"no CA file", TLSConfig{CAFile: "/nonexistent"}, errdefs.ErrInvalid, "CAFile: open /nonexistent: no such file"},
		{"empty CA file", TLSConfig{CAFile: empty}, errdefs.ErrInvalid, "no certificate in PEM form"},
		{"certificate alone", TLSConfig{CertFile: cert}, errdefs.ErrInvalid, "go together"},
		{"key alone", TLSConfig{KeyFile: key}, errdefs.ErrInvalid, "go together"},
		{"the wrong way round", TLSConfig{CertFile: key, KeyFile: cert}, errdefs.ErrInvalid, "CertFile and KeyFile: "},
		{"passphrase", TLSConfig{CertFile: cert, KeyFile: key, Passphrase: "hunter2"}, errdefs.ErrUnsupported, "encrypted keys"},
		{"old TLS", TLSConfig{MinVersion: tls.VersionTLS10}, errdefs.ErrInvalid, "MinVersion 769"},
		{"future TLS", TLSConfig{MinVersion: 0x400}, errdefs.ErrInvalid, "MinVersion 1024"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(Endpoint{Name: "x", Addr: "https://h:1", TLS: &tt.conf}, Options{})
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v of class %v, want %v with %q", err, errdefs.Class(err), tt.class, tt.text)
			}
		})
	}
}

func TestPassphraseDoesNotShow(t *testing.T) {
	c := TLSConfig{Passphrase: "hunter2"}
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "tls", c)
	slog.New(slog.NewTextHandler(&b, nil)).Info("m", "tls", &c, "p", c.Passphrase)
	fmt.Fprintf(&b, "%v %+v %#v %s", c, c, c, c.Passphrase)
	if s := b.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "REDACTED") {
		t.Errorf("printed %s", s)
	}
	var back TLSConfig
	if err := json.Unmarshal([]byte(`{"Passphrase":"hunter2"}`), &back); err != nil || back.Passphrase != "hunter2" {
		t.Errorf("read %d bytes, %v", len(back.Passphrase), err)
	}
}
