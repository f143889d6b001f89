package authz

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// certificate makes a self-signed certificate for a user, in PEM.
func certificate(t *testing.T, user string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: user, OrganizationalUnit: []string{"ops"}},
		DNSNames: []string{user + ".example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestPeerCertificates(t *testing.T) {
	// An engine writes each as a JSON string that holds base64 of PEM.
	blob, err := json.Marshal(map[string]any{
		"User": "alice", "UserAuthNMethod": "TLS", "RequestMethod": "GET", "RequestUri": "/info",
		"RequestPeerCertificates": [][]byte{certificate(t, "alice"), certificate(t, "ca")},
	})
	if err != nil {
		t.Fatal(err)
	}
	var w wire.AuthZRequest
	if err := json.Unmarshal(blob, &w); err != nil {
		t.Fatal(err)
	}
	r, err := toRequest(&w)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.PeerCertificates) != 2 || r.PeerCertificates[0].Subject.CommonName != "alice" || r.PeerCertificates[1].Subject.CommonName != "ca" ||
		!slices.Equal(r.PeerCertificates[0].DNSNames, []string{"alice.example"}) || !slices.Equal(r.PeerCertificates[0].Subject.OrganizationalUnit, []string{"ops"}) {
		t.Errorf("%d certificates: %+v", len(r.PeerCertificates), r.PeerCertificates)
	}
}

func TestBadPeerCertificatesDeny(t *testing.T) {
	good := certificate(t, "alice")
	for name, blocks := range map[string][][]byte{
		"empty":          {nil},
		"no PEM":         {[]byte("alice")},
		"not one":        {slices.Concat(good, good)},
		"no certificate": {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})},
		"a key":          {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})},
		"the second":     {good, []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			w := ping
			w.RequestPeerCertificates = blocks
			status, got := send(t.Context(), t, NewHandler(always(Allow(), nil), Options{}), wire.AuthZReq, w)
			if status != 200 || got.Allow {
				t.Errorf("status %d, answer %+v", status, got)
			}
		})
	}
}
