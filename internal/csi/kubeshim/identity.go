package kubeshim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// identity is what a driver knows the API by.
type identity struct {
	Token string `json:"token"`
	Cert  string `json:"cert"` // PEM, and its own authority
	Key   string `json:"key"`
	Port  int    `json:"port,omitempty"`
}

const (
	identityFile    = "identity.json"
	identityVersion = 1
	accountDir      = "serviceaccount"
	// Inside is where a driver in an image has Account.
	Inside = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// loadIdentity returns the identity that is kept in a directory, a new one where there is none.
func loadIdentity(root *os.Root) (identity, error) {
	var id identity
	err := state.Read(root, identityFile, identityVersion, &id)
	if err == nil {
		if _, err := id.certificate(); err == nil && id.Token != "" {
			return id, nil
		}
	} else if !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, state.ErrCorrupt) {
		return id, err
	}
	return newIdentity()
}

func newIdentity() (identity, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return identity{}, err
	}
	// Whether a clock is right is not known when a host starts; nobody else has the key.
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "remora kubeshim"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return identity{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return identity{}, err
	}
	return identity{
		Token: rand.Text() + rand.Text(),
		Cert:  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
	}, nil
}

func (id identity) certificate() (tls.Certificate, error) {
	return tls.X509KeyPair([]byte(id.Cert), []byte(id.Key))
}

// save writes what the next daemon needs, and what a driver is given.
func (id identity) save(root *os.Root) error {
	if err := state.Write(root, identityFile, identityVersion, id); err != nil {
		return err
	}
	if err := root.MkdirAll(accountDir, 0o700); err != nil {
		return state.Classify(err)
	}
	server := "https://127.0.0.1:" + strconv.Itoa(id.Port)
	for name, data := range map[string]string{
		"token": id.Token, "ca.crt": id.Cert, "namespace": "default",
		"kubeconfig": fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: remora, cluster: {server: "%s", certificate-authority-data: "%s"}}]
users: [{name: driver, user: {token: "%s"}}]
contexts: [{name: remora, context: {cluster: remora, user: driver, namespace: default}}]
current-context: remora
`, server, base64.StdEncoding.EncodeToString([]byte(id.Cert)), id.Token),
	} {
		file := accountDir + "/" + name
		if old, err := root.ReadFile(file); err == nil && string(old) == data {
			continue
		}
		// A driver has the directory, and with it the file that takes the place of another.
		if err := root.WriteFile(file+".new", []byte(data), 0o600); err != nil {
			return state.Classify(err)
		}
		if err := root.Rename(file+".new", file); err != nil {
			return state.Classify(err)
		}
	}
	return nil
}
