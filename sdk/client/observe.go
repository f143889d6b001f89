package client

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// Exchange is one attempt of one call, as it went over the wire.
type Exchange struct {
	// Method is what was called, such as "VolumeDriver.Get".
	Method string
	// Request is the body that was sent, nil for none.
	Request []byte
	// Status and Answer are what came back. Status is 0 where nothing did, and Err says why.
	Status int
	Answer []byte
	Err    error
	// Took is the time from the request to the end of the answer.
	Took time.Duration
}

// observe tells of one attempt, where somebody wants to know.
func (c *Client) observe(x Exchange, start time.Time) {
	if c.opts.Observe != nil {
		x.Took = time.Since(start)
		c.opts.Observe(x)
	}
}

// Dial opens a connection of its own to the plugin, with TLS where the address asks for it,
// for requests that a Client would not make. The caller closes it.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	network, address := "unix", c.target.socket
	if address == "" {
		network, address = "tcp", c.target.host
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(address, map[string]string{"http": "80", "https": "443"}[c.target.scheme])
		}
	}
	conn, err := c.opts.Dial(ctx, network, address)
	if err != nil {
		return nil, transport(ctx, ctx, err)
	}
	if c.target.scheme != "https" {
		return conn, nil
	}
	conf := c.target.tls.Clone()
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(address)
	}
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, transport(ctx, ctx, err)
	}
	return secure, nil
}
