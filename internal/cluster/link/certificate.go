package link

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// alpn lets a server that is something else say so.
const alpn = "remora-link"

// tlsConfigs returns those of a dialer and of a listener. Who the other side is says its key alone: the certificate around
// it has no date that counts, so no clock has to be right.
func tlsConfigs(key ed25519.PrivateKey) (dialer, listener *tls.Config, err error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	common := &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := hostOf(s)
			return err
		},
	}
	dialer, listener = common.Clone(), common
	dialer.InsecureSkipVerify = true // VerifyConnection wants a key, Standing and the proof say whose
	listener.ClientAuth = tls.RequireAnyClientCert
	return dialer, listener, nil
}

var errNoKey = errors.New("its certificate is not that of a host")

// hostOf returns who has the other end. TLS has seen that it has the key.
func hostOf(s tls.ConnectionState) (h record.Host, err error) {
	if s.NegotiatedProtocol != alpn || len(s.PeerCertificates) != 1 {
		return h, errNoKey
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != len(h) {
		return h, errNoKey
	}
	copy(h[:], key)
	return h, nil
}
