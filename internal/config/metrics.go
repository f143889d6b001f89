package config

import (
	"net"
	"strconv"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Metrics says where metrics and health are served beside the control socket.
type Metrics struct {
	// Listen is "host:port"; empty listens nowhere.
	Listen string
	// The files of TLS: all or none.
	TLSCA, TLSCert, TLSKey string
}

// Socket returns what [sdk.ListenTCP] wants.
func (m Metrics) Socket() sdk.TCPSocket {
	s := sdk.TCPSocket{Addr: m.Listen}
	if m.TLSCA != "" {
		s.TLS = &sdk.ServerTLS{CAFile: m.TLSCA, CertFile: m.TLSCert, KeyFile: m.TLSKey}
	}
	return s
}

// address takes "host:port" with a port that is a number; empty is none.
func address(at func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		_, port, err := net.SplitHostPort(s)
		if _, perr := strconv.ParseUint(port, 10, 16); s != "" && (err != nil || perr != nil) {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q is not an address such as 127.0.0.1:9464", s)
		}
		*at(c) = s
		return nil
	}
}

// metrics refuses keys that do not go together. What leaves the machine is encrypted, and
// asks its readers who they are.
func (b *builder) metrics() error {
	m := b.config.Metrics
	files := []struct{ key, value string }{
		{"metrics.tls_ca", m.TLSCA}, {"metrics.tls_cert", m.TLSCert}, {"metrics.tls_key", m.TLSKey},
	}
	given, missing := "", ""
	for _, f := range files {
		if f.value != "" {
			given = f.key
		} else {
			missing = f.key
		}
	}
	switch {
	case given != "" && missing != "":
		return b.wrongSet(given, errdefs.Errorf(errdefs.ErrInvalid, "%q is missing: the three files of TLS are all needed", missing))
	case given != "" && m.Listen == "":
		return b.wrongSet(given, errdefs.Errorf(errdefs.ErrInvalid, `"metrics.listen" is missing: there is nothing to encrypt`))
	case given == "" && m.Listen != "" && !sdk.Loopback(m.Listen):
		return b.wrongSet("metrics.listen", errdefs.Errorf(errdefs.ErrInvalid,
			"%q can be reached from other machines: want metrics.tls_ca, metrics.tls_cert and metrics.tls_key, or an address such as 127.0.0.1:9464", m.Listen))
	}
	return nil
}

// wrongSet is wrong for a key that has been set.
func (b *builder) wrongSet(key string, err error) error {
	for _, v := range b.config.values {
		if v.Key == key {
			return b.wrong(key, v.Source, err)
		}
	}
	return err
}
