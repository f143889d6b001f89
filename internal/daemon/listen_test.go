package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/drivers/all"
)

// freePort returns an address on loopback at which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get reads a page and returns its status.
func get(t *testing.T, conf *tls.Config, method, url string) (int, string, error) {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it has been read
	return resp.StatusCode, string(b), err
}

func TestMetricsOnLoopback(t *testing.T) {
	addr := freePort(t)
	h := startHost(t, "metrics.listen = \""+addr+"\"\n[pool.a]\n")
	for path, want := range map[string]string{"/metrics": "remora_pool_reachable", "/healthz": "ok\n", "/readyz": "ok\n"} {
		if status, text, err := get(t, nil, http.MethodGet, "http://"+addr+path); err != nil || status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: %d %q, %v", path, status, text, err)
		}
	}
	// Nothing can be done there.
	for _, path := range []string{"/Daemon.Status", "/Daemon.Reload", "/Plugin.Activate", "/metrics", "/"} {
		if status, text, err := get(t, nil, http.MethodPost, "http://"+addr+path); err != nil || status < 400 {
			t.Errorf("POST %s: %d %q, %v", path, status, text, err)
		}
	}
	r, err := h.reload("metrics.listen = \"" + freePort(t) + "\"\n[pool.a]\n")
	h.must(err)
	if !slices.Equal(r.NeedRestart, []string{"metrics.listen"}) {
		t.Errorf("reload: %+v", r)
	}
	if _, err := h.reload("metrics.listen = \":9464\"\n[pool.a]\n"); err == nil || !strings.Contains(err.Error(), "can be reached from other machines") {
		t.Errorf("reload: %v", err)
	}
	h.must(h.stop())
	if _, _, err := get(t, nil, http.MethodGet, "http://"+addr+"/healthz"); err == nil {
		t.Error("served after the stop")
	}
}

// selfSigned makes cert.pem and key.pem in dir, of one who signs, serves and reads.
func selfSigned(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(dir+"/"+name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(dir+"/cert.pem", dir+"/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestMetricsWithTLS(t *testing.T) {
	dir, addr := t.TempDir(), freePort(t)
	pair := selfSigned(t, dir)
	startHost(t, fmt.Sprintf("[metrics]\nlisten = %q\ntls_ca = \"%s/cert.pem\"\ntls_cert = \"%[2]s/cert.pem\"\ntls_key = \"%[2]s/key.pem\"\n", addr, dir))
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	known := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	if status, text, err := get(t, known, http.MethodGet, "https://"+addr+"/metrics"); err != nil || status != http.StatusOK || !strings.Contains(text, "remora_") {
		t.Errorf("a reader with a certificate: %d %q, %v", status, text, err)
	}
	if status, _, err := get(t, &tls.Config{RootCAs: roots}, http.MethodGet, "https://"+addr+"/metrics"); err == nil {
		t.Errorf("a reader without a certificate was answered %d", status)
	}
	if status, text, err := get(t, nil, http.MethodGet, "http://"+addr+"/metrics"); err == nil && status == http.StatusOK {
		t.Errorf("a reader without TLS was answered %q", text)
	}
}

func TestMetricsCannotBeServed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, tt := range map[string]struct{ toml, want string }{
		"taken":    {fmt.Sprintf("metrics.listen = %q\n", l.Addr()), "address already in use"},
		"no files": {"[metrics]\nlisten = \"127.0.0.1:0\"\ntls_ca = \"/no/ca\"\ntls_cert = \"/no/cert\"\ntls_key = \"/no/key\"\n", "/no/cert"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.toml)
			err := Run(t.Context(), options(h.dir, slog.New(slog.NewTextHandler(t.Output(), nil)), all.Volumes()))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("run: %v, want %q", err, tt.want)
			}
		})
	}
}
