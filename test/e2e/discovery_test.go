package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestDiscovery announces plugins in every form that an engine knows, right and wrong, and
// looks at what a user sees.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine...)
	bin := filepath.Join(t.TempDir(), "plugin")
	build := exec.Command("go", "build", "-o", bin, "github.com/remora-plugins/remora/test/e2e/plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h := l.Host(t, "h1")
	h.Remora("")
	h.Dockerd()
	pki := newPKI(t, h, "127.0.0.1")
	other := newPKI(t, h, "127.0.0.1")
	stranger := newPKI(t, h, "10.1.2.3")

	// start starts a plugin and waits for its announcement.
	start := func(t *testing.T, name string, args ...string) *lab.Process {
		t.Helper()
		p := h.Start(nil, bin, append(args, "-name", name, "-root", "/run/data/"+name)...)
		h.Wait(p, 10*time.Second, "plugin", func() error {
			_, err := h.Run("sh", "-c", "ls /etc/docker/plugins/"+name+".*")
			return err
		})
		return p
	}
	right := map[string]*lab.Process{
		"unixspec": start(t, "unixspec", "-unix", "/run/elsewhere/x.sock"),
		"tcpspec":  start(t, "tcpspec", "-tcp", "127.0.0.1:8080"),
		"mutual":   start(t, "mutual", "-tcp", "127.0.0.1:8443", "-tls", pki.server(), "-client-tls", pki.client()),
	}
	for _, name := range []string{"remora", "unixspec", "tcpspec", "mutual"} {
		t.Run(name, func(t *testing.T) { works(t, h, name) })
	}
	t.Run("refused off loopback", func(t *testing.T) {
		text := h.Fails(bin, "-tcp", "0.0.0.0:8449", "-name", "open", "-root", "/run/data/open")
		want(t, text, "TCP without TLS is for loopback alone")
	})
	t.Run("second daemon", func(t *testing.T) {
		want(t, h.Fails(l.Remora, "daemon"), "another process listens there", "hint: ")
		works(t, h, "remora")
	})
	t.Run("gone after the stop", func(t *testing.T) {
		for _, p := range right {
			noErr(t, p.Stop(10*time.Second))
		}
		is(t, "announcements", h.Must("ls", "/etc/docker/plugins"), "")
	})
	// Each of these costs the 15 seconds for which an engine tries; at the same time all
	// together do.
	//
	// With TLS 1.3 a caller has sent its request when it is refused: it sees the alert, or
	// that nobody read what it sent, whichever comes first.
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"wrongca": {
			[]string{"-tcp", "127.0.0.1:8444", "-tls", pki.server(), "-client-tls", other.ca() + "," + pki.certAndKey()},
			"certificate signed by unknown authority",
		},
		"wrongcaller": {[]string{"-tcp", "127.0.0.1:8445", "-tls", pki.server(), "-client-tls", pki.ca() + "," + other.certAndKey()}, "tls: |connection reset by peer"},
		"wrongname": {
			[]string{"-tcp", "127.0.0.1:8446", "-tls", stranger.server(), "-client-tls", stranger.client()},
			`certificate is valid for 10\.1\.2\.3, not 127\.0\.0\.1`,
		},
		"nobody": {[]string{"-tcp", "127.0.0.1:8447", "-announce", "tcp://127.0.0.1:8448"}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start(t, name, tt.args...)
			if text := h.Fails("docker", "volume", "create", "-d", name, "x-"+name); !regexp.MustCompile(tt.says).MatchString(text) {
				t.Errorf("%q lacks %q", text, tt.says)
			}
		})
	}
}

// works runs the classic flow on one driver.
func works(t *testing.T, h *lab.Host, driver string) {
	t.Helper()
	name := "on-" + driver
	h.MustDocker("volume", "create", "-d", driver, name)
	want(t, h.MustDocker("volume", "ls"), name)
	h.MustDocker("run", "--rm", "--network=none", "-v", name+":/d", "bb:1", "sh", "-c", "echo bye > /d/hi")
	is(t, "what was written", h.MustDocker("run", "--rm", "--network=none", "-v", name+":/d", "bb:1", "cat", "/d/hi"), "bye")
	h.MustDocker("volume", "rm", name)
}

// pki is a certificate authority with one certificate for servers and callers alike.
type pki struct{ dir string }

func (p pki) ca() string         { return p.dir + "/ca.pem" }
func (p pki) certAndKey() string { return p.dir + "/cert.pem," + p.dir + "/key.pem" }
func (p pki) server() string     { return p.ca() + "," + p.certAndKey() }
func (p pki) client() string     { return p.server() }

// newPKI makes one whose certificate is for ip.
func newPKI(t *testing.T, h *lab.Host, ip string) pki {
	t.Helper()
	p := pki{t.TempDir()}
	caKey, ca := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	key, cert := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "plugin"}, IPAddresses: []net.IP{net.ParseIP(ip)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, caKey)
	der, err := x509.MarshalECPrivateKey(key)
	noErr(t, err)
	for name, block := range map[string]*pem.Block{
		"ca.pem":   {Type: "CERTIFICATE", Bytes: ca.Raw},
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Raw},
		"key.pem":  {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		noErr(t, os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(block), 0o600))
	}
	if strings.HasPrefix(p.dir, "/run") {
		t.Fatalf("%s is not seen in the host %s", p.dir, h.Name)
	}
	return p
}

func sign(t *testing.T, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noErr(t, err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	noErr(t, err)
	cert, err := x509.ParseCertificate(der)
	noErr(t, err)
	return key, cert
}
