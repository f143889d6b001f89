package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxSocketPath is the longest path of a unix socket in bytes (unix(7): sun_path, less
// the final NUL).
const maxSocketPath = 107

// Endpoint is where a plugin is.
type Endpoint struct {
	// Name is the plugin's name: that of its file without the extension.
	Name string
	// Addr is a URL: unix:///path, tcp://host:port, http://host:port or https://host:port.
	// TLS is spoken to https alone.
	Addr string
	// TLS is how to speak TLS; nil is with the host's own roots.
	TLS *TLSConfig
	// Source is the path of the socket or file that told of the plugin, empty for an
	// endpoint made by hand.
	Source string
}

// TLSConfig is the object of that name in a .json file. Paths are those of PEM files.
type TLSConfig struct {
	// CAFile has the roots that the plugin's certificate must lead to.
	CAFile string
	// CertFile and KeyFile are the client's certificate and key; both or neither.
	CertFile string
	KeyFile  string
	// InsecureSkipVerify: any certificate will do.
	InsecureSkipVerify bool
	// ClientAuth is for servers; a client ignores it.
	ClientAuth int `json:",omitempty"`
	// ExclusiveRootPools: the host's own roots do not count beside CAFile.
	ExclusiveRootPools bool `json:",omitempty"`
	// MinVersion is a version of TLS by its number on the wire; 0 is TLS 1.2, which is
	// also the least that is accepted.
	MinVersion uint16 `json:",omitempty"`
	// Passphrase would open an encrypted key. Such keys are not supported: their
	// encryption can be undone by anyone.
	Passphrase Passphrase `json:",omitempty"`
}

// Passphrase is a secret that does not show in logs and errors.
type Passphrase string

// String returns "REDACTED", or "" for no secret.
func (p Passphrase) String() string {
	if p == "" {
		return ""
	}
	return "REDACTED"
}

// GoString returns what String does.
func (p Passphrase) GoString() string { return p.String() }

// MarshalText writes what String returns.
func (p Passphrase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Warnings returns what is odd about the endpoint though an engine accepts it, one
// sentence each: it is likely not what its author meant.
func (e Endpoint) Warnings() []string {
	u, err := url.Parse(e.Addr)
	if err != nil {
		return nil
	}
	var w []string
	if u.Scheme != "unix" && strings.Trim(u.Path, "/") != "" {
		w = append(w, fmt.Sprintf("The path %q of the address is ignored: methods are always called at the root.", u.Path))
	}
	switch {
	case u.Scheme == "https" && e.TLS != nil && e.TLS.InsecureSkipVerify:
		w = append(w, "The plugin's certificate is not checked, as there is no CAFile or InsecureSkipVerify is set: anyone on the way can answer in its place.")
	case u.Scheme == "tcp" && e.TLS != nil && *e.TLS != insecure, u.Scheme == "http" && e.TLS != nil && *e.TLS != insecure:
		w = append(w, fmt.Sprintf("TLSConfig has no effect with %s, which is plain HTTP: write https for TLS.", u.Scheme))
	case u.Scheme == "unix" && e.TLS != nil && *e.TLS != insecure:
		w = append(w, "TLSConfig has no effect with a unix socket.")
	}
	return w
}

// insecure is the TLS configuration that engines give to a .spec file.
var insecure = TLSConfig{InsecureSkipVerify: true}

// target is an endpoint taken apart.
type target struct {
	scheme string // "http" or "https"
	host   string // the URL's host
	socket string // path of a unix socket, or empty
	tls    *tls.Config
}

// engineHost is the host that dockerd names to a plugin on a socket (since 23.0.7).
const engineHost = "plugin.moby.localhost"

func (e Endpoint) target() (target, error) {
	u, err := parseAddr(e.Addr)
	if err != nil {
		return target{}, err
	}
	switch u.Scheme {
	case "unix":
		return target{scheme: "http", host: engineHost, socket: u.Path}, nil
	case "https":
		conf, err := e.TLS.client()
		if err != nil {
			return target{}, err
		}
		return target{scheme: "https", host: u.Host, tls: conf}, nil
	}
	return target{scheme: "http", host: u.Host}, nil
}

// parseAddr refuses what an engine could not connect to. It is stricter than dockerd,
// which takes any scheme for HTTP and then dials nothing.
func parseAddr(addr string) (*url.URL, error) {
	u, err := url.Parse(addr)
	if err != nil {
		if cause, ok := err.(*url.Error); ok { //nolint:errorlint // what url.Parse returns
			err = cause.Err
		}
		return nil, badAddr("address %q: %w", addr, err)
	}
	switch u.Scheme {
	case "unix":
		switch {
		case u.Host != "" || u.Opaque != "":
			return nil, badAddr("address %q: the path of a socket starts with three slashes, as in unix:///run/x.sock", addr)
		case u.Path == "" || strings.HasSuffix(u.Path, "/"):
			return nil, badAddr("address %q: no path of a socket", addr)
		case len(u.Path) > maxSocketPath:
			return nil, badAddr("address %q: the path of a socket has at most %d bytes, this one has %d", addr, maxSocketPath, len(u.Path))
		}
	case "tcp", "http", "https":
		if u.Hostname() == "" {
			return nil, badAddr("address %q: no host", addr)
		}
	case "npipe":
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "address %q: named pipes exist on Windows alone", addr)
	case "":
		return nil, badAddr("address %q: no scheme such as unix:// or https://", addr)
	default:
		return nil, badAddr("address %q: scheme %q is none of unix, tcp, http, https", addr, u.Scheme)
	}
	if again, err := url.Parse(baseURL("http", u.Host)); err != nil || again.Host != u.Host {
		return nil, badAddr("address %q: %q is no host", addr, u.Host)
	}
	return u, nil
}

// baseURL returns what stands before the path in the URL of a call.
func baseURL(scheme, host string) string {
	return (&url.URL{Scheme: scheme, Host: host}).String()
}

func badAddr(format string, args ...any) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, format, args...),
		"Write the address as unix:///path/of.sock, tcp://host:port, http://host:port or https://host:port.")
}

// client does what the engine does with the same fields (docker/go-connections,
// tlsconfig.Client).
func (t *TLSConfig) client() (*tls.Config, error) {
	if t == nil {
		return nil, nil //nolint:nilnil // the default of net/http
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify} //nolint:gosec // what the file says
	if t.MinVersion != 0 {
		if t.MinVersion < tls.VersionTLS12 || t.MinVersion > tls.VersionTLS13 {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "TLSConfig: MinVersion %d is not TLS 1.2 (%d) or 1.3 (%d)", t.MinVersion, tls.VersionTLS12, tls.VersionTLS13)
		}
		conf.MinVersion = t.MinVersion
	}
	if t.CAFile != "" && !t.InsecureSkipVerify {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "TLSConfig: CAFile: %w", err)
		}
		roots := x509.NewCertPool()
		if !t.ExclusiveRootPools {
			if system, err := x509.SystemCertPool(); err == nil {
				roots = system
			}
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "TLSConfig: CAFile %q: no certificate in PEM form", t.CAFile)
		}
		conf.RootCAs = roots
	}
	if t.Passphrase != "" {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "TLSConfig: Passphrase: encrypted keys are not supported"),
			"Store the key unencrypted, readable by root alone, and remove Passphrase.")
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "TLSConfig: CertFile and KeyFile go together, and one of them is missing")
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "TLSConfig: CertFile and KeyFile: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}
