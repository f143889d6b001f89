package sdk

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TCPSocket says on which TCP address a plugin listens. Addr is required, and TLS
// unless Addr is on loopback.
type TCPSocket struct {
	// Addr is "host:port".
	Addr string
	// TLS makes the listener speak TLS and ask every caller for a certificate.
	TLS *ServerTLS
	// Insecure lets a listener without TLS leave loopback: whoever reaches the address
	// then commands the plugin. Only for a network that is a cable.
	Insecure bool
	// Name, if not empty, announces the plugin to the engines of this host under that
	// name for as long as it listens; Announce says where and with which files.
	Name string
	// Announce completes the announcement: Dir, Addr and TLS are used, the rest is known.
	// Without Addr it is where the plugin listens, which must then be one address.
	// With TLS, Announce.TLS is required: it is what lets an engine in.
	Announce Announcement
}

// ServerTLS names the files of a server that knows its callers by certificate.
type ServerTLS struct {
	// CAFile holds the PEM certificates of those who sign callers' certificates.
	CAFile string
	// CertFile and KeyFile hold the server's own, in PEM.
	CertFile, KeyFile string
}

// ListenTCP listens on the address that t describes. Without TLS it refuses any
// address but loopback with ErrDenied, unless t.Insecure. Closing the listener also
// takes back the announcement.
func ListenTCP(t TCPSocket) (net.Listener, error) {
	if t.TLS == nil && !t.Insecure && !Loopback(t.Addr) {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "listen %q: TCP without TLS is for loopback alone", t.Addr),
			"give a CA, a certificate and a key, listen on 127.0.0.1, or use a unix socket")
	}
	if t.TLS != nil && t.Name != "" && t.Announce.TLS == nil {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "announce %q: with TLS an engine needs a CA, a certificate and a key to get in", t.Name),
			"name the engine's files, or announce the plugin by hand")
	}
	var conf *tls.Config
	if t.TLS != nil {
		var err error
		if conf, err = t.TLS.config(); err != nil {
			return nil, fmt.Errorf("listen %q: %w", t.Addr, err)
		}
	}
	l, err := net.Listen("tcp", t.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", t.Addr, err)
	}
	scheme := "tcp"
	if conf != nil {
		l, scheme = tls.NewListener(l, conf), "https"
	}
	if t.Name == "" {
		return l, nil
	}
	a := t.Announce
	a.Name = t.Name
	if a.Addr == "" {
		if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
			return nil, errors.Join(everywhere(t), l.Close())
		}
		a.Addr = scheme + "://" + l.Addr().String()
	}
	remove, err := Announce(a)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &announced{Listener: l, remove: remove}, nil
}

// everywhere is the error for an address that says where to listen and not where to call:
// of such a name no certificate can speak, and RFC 4291 section 2.5.2 has nobody send to it.
func everywhere(t TCPSocket) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "announce %q: listening on %q, which is every address, and an engine calls one", t.Name, t.Addr),
		"listen on one address, or set Announce.Addr to the one that engines are to call")
}

// Loopback tells whether addr, "host:port", can be reached from this host alone. A
// listener anywhere else wants TLS.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (t ServerTLS) config() (*tls.Config, error) {
	if t.CAFile == "" || t.CertFile == "" || t.KeyFile == "" {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "tls: a CA, a certificate and a key are all needed")
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "tls certificate %q, key %q: %w", t.CertFile, t.KeyFile, err)
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "tls ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "tls ca %q: no certificate in it", t.CAFile)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS12,
	}, nil
}

// announced takes back an announcement when its listener is closed.
type announced struct {
	net.Listener
	remove func() error
	once   sync.Once
	err    error
}

func (a *announced) Close() error {
	a.once.Do(func() { a.err = errors.Join(a.remove(), a.Listener.Close()) })
	return a.err
}
