package authz_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/internal/enginetest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes NAME.pem and NAME-key.pem. The first certificate signs itself and the rest.
func (a *authority) issue(name string, c *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	c.SerialNumber, c.Subject = big.NewInt(a.n), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if a.cert == nil {
		a.cert, a.key = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		a.file(name): {Type: "CERTIFICATE", Bytes: der}, a.file(name + "-key"): {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name+".pem") }

// TestEngineWithUsers: only a client that came by TLS with a certificate has a name.
func TestEngineWithUsers(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Dockerd)
	ca := newAuthority(t)
	ca.issue("engine", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	ca.issue("alice", &x509.Certificate{DNSNames: []string{"alice.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	a := &record{}
	h := enginetest.NewHost(t)
	serve(t, h, "guard", a)
	e := h.Start(t, "--authorization-plugin=guard", "--host=tcp://"+addr, "--tlsverify",
		"--tlscacert="+ca.file("ca"), "--tlscert="+ca.file("engine"), "--tlskey="+ca.file("engine-key"))

	pair, err := tls.LoadX509KeyPair(ca.file("alice"), ca.file("alice-key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if b, err := os.ReadFile(ca.file("ca")); err != nil || !roots.AppendCertsFromPEM(b) {
		t.Fatal(err)
	}
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/v1.41/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("status %d, %v", resp.StatusCode, err)
	}
	r := a.last("GET /version")
	if r.User != "alice" || r.AuthMethod != "TLS" || len(r.PeerCertificates) != 1 || r.PeerCertificates[0].DNSNames[0] != "alice.example" {
		t.Errorf("user %q by %q with %d certificates", r.User, r.AuthMethod, len(r.PeerCertificates))
	}
	ask(t, e, "GET", "/v1.41/version", nil)
	if r := a.last("GET /version"); r.User != "" || r.AuthMethod != "" || r.PeerCertificates != nil {
		t.Errorf("on the unix socket user %q by %q", r.User, r.AuthMethod)
	}
}
