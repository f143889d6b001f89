package openstack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"
)

// front is what speaks TLS before the services.
type front struct {
	servers []*http.Server
	wrap    atomic.Pointer[func(http.Handler) http.Handler]
}

// Intercept puts a handler before all services of [RegionTLS], which counts requests, delays or
// refuses them. Nil takes it away.
func (c *Cloud) Intercept(wrap func(http.Handler) http.Handler) {
	if wrap == nil {
		c.front.wrap.Store(nil)
		return
	}
	c.front.wrap.Store(&wrap)
}

func (f *front) close() {
	for _, s := range f.servers {
		_ = s.Close()
	}
}

// startFront makes an authority and a certificate, and listens.
func startFront(c *Cloud) (*front, error) {
	cert, ca, err := certificate(net.ParseIP(c.address.IP))
	if err != nil {
		return nil, err
	}
	if err := c.write("ca.pem", string(ca)); err != nil {
		return nil, err
	}
	f := &front{}
	for from, to := range map[int]int{5443: 5000, 8743: 8776} {
		l, err := net.Listen("tcp", c.address.At(from))
		if err != nil {
			f.close()
			return nil, err
		}
		proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: c.address.At(to)})
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		}}
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if wrap := f.wrap.Load(); wrap != nil {
				(*wrap)(proxy).ServeHTTP(w, r)
				return
			}
			proxy.ServeHTTP(w, r)
		})
		s := &http.Server{
			Handler: h, ReadHeaderTimeout: time.Minute,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
			ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		}
		f.servers = append(f.servers, s)
		go func() { _ = s.ServeTLS(l, "", "") }()
	}
	return f, nil
}

// certificate makes an authority and a certificate for ip that it signed.
func certificate(ip net.IP) (cert tls.Certificate, ca []byte, err error) {
	sign := func(t, parent *x509.Certificate, key *ecdsa.PublicKey, by *ecdsa.PrivateKey) ([]byte, error) {
		t.NotBefore, t.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		return x509.CreateCertificate(rand.Reader, t, parent, key, by)
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := sign(authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		return cert, nil, err
	}
	der, err := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{ip}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, &key.PublicKey, caKey)
	if err != nil {
		return cert, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}
