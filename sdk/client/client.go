// Package client does what an engine does with plugins: it finds them, activates them
// and calls them.
//
//	ep, err := client.Dirs{}.Find("mobyfs")
//	…
//	c, err := client.New(ep, client.Options{})
//	…
//	defer c.Close()
//	kinds, err := c.Activate(ctx)
//	…
//	mountpoint, err := c.Volume().Mount(ctx, "data", id)
//
// A zero [Options] is for a person or a test that wants to know at once: nothing is
// tried twice. With Retry it is as patient as the engine, and with Engine set to
// [Podman] it speaks, and judges answers, as Podman does.
//
// Errors carry a class of package errdefs. What the plugin itself answered is an
// [*Error] inside; the class is the one the plugin named, where it was made with this
// SDK, and is guessed from status and text otherwise:
//
//	ErrUnavailable             no answer came: nothing listens, the connection broke
//	context.DeadlineExceeded   no answer came in time
//	ErrUnsupported             the plugin has no such method
//	ErrNotFound                VolumeDriver.Get says that there is no such volume
//
// The package is not a client of the engine's own API, and not of managed plugins'
// life cycle.
package client

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// Engine is whose habits a [Client] has.
type Engine int

const (
	// Docker is dockerd: JSON without a Content-Type, an error either as a status other
	// than 200 or as a text in an answer with status 200.
	Docker Engine = iota
	// Podman knows volume plugins alone, sends a Content-Type, and takes every answer
	// with status 200 for success, whatever it says.
	Podman
)

// Limits where [Options] has none.
const (
	// DefaultMaxAnswer bounds an answer in bytes. A list of 100,000 volumes takes 10 MiB.
	DefaultMaxAnswer = 64 << 20

	dialTime   = 10 * time.Second
	podmanTime = 5 * time.Second
)

// Options changes how a [Client] behaves. The zero value plays a dockerd that never
// tries twice.
type Options struct {
	// Timeout bounds each attempt of each call. Zero is the engine's own: with Docker two
	// minutes for VolumeDriver.Create and Mount, one minute for the other methods of
	// VolumeDriver, none for the rest; with Podman five seconds. Negative is none.
	Timeout time.Duration
	// Retry makes a call that got no answer at all again after 1, 2, 4, 8 … seconds, and
	// gives up where the next try would come 30 seconds or more after the first
	// (moby pkg/plugins/client.go). Podman does not do so.
	Retry bool
	// Engine is whose requests are sent and whose rules tell success from failure.
	Engine Engine
	// MaxAnswer bounds an answer in bytes; 0 is DefaultMaxAnswer.
	MaxAnswer int64
	// Dial connects instead of a [net.Dialer]; network is "unix" or "tcp". For tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger is told of attempts that are made again; nil is silence.
	Logger *slog.Logger
	// Observe is told of each attempt when it is over; nil is nobody. It must be safe for
	// concurrent use, and leave the bytes alone. What it is told may have secrets in it.
	Observe func(Exchange)
}

// Client calls one plugin. It keeps connections for later calls and is safe for
// concurrent use. A plugin that was restarted is simply connected to again.
type Client struct {
	name      string
	base      string // scheme and host of every URL
	http      *http.Client
	transport *http.Transport
	target    target
	opts      Options
}

// New returns a client of the plugin at e. It connects to nothing yet. An address or a
// TLS configuration that no plugin can be reached with is ErrInvalid.
func New(e Endpoint, opts Options) (*Client, error) {
	t, err := e.target()
	if err != nil {
		return nil, fmt.Errorf("plugin %q: %w", e.Name, err)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.MaxAnswer <= 0 {
		opts.MaxAnswer = DefaultMaxAnswer
	}
	if opts.Dial == nil {
		opts.Dial = (&net.Dialer{Timeout: dialTime}).DialContext
	}
	c := &Client{name: e.Name, base: baseURL(t.scheme, t.host), target: t, opts: opts}
	c.transport = &http.Transport{
		DialContext:         opts.Dial,
		TLSClientConfig:     t.tls,
		TLSHandshakeTimeout: dialTime,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
	}
	if t.socket != "" {
		// A socket has no name that a proxy, or a virtual host, could stand for.
		c.transport.DisableCompression = true
		c.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return opts.Dial(ctx, "unix", t.socket)
		}
		if opts.Engine == Podman {
			c.base = "http://plugin"
		}
	} else {
		c.transport.Proxy = http.ProxyFromEnvironment
	}
	c.http = &http.Client{
		Transport: c.transport,
		// No engine follows one: anything but 200 is a failure.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close drops the connections that are idle. Calls under way end as they would have,
// and a later call connects anew. It returns nil.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Name returns the plugin's name.
func (c *Client) Name() string { return c.name }

// Activate asks the plugin for its kinds: "VolumeDriver", "NetworkDriver", "IpamDriver",
// "authz" and others. An engine does so once before any other call.
func (c *Client) Activate(ctx context.Context) ([]string, error) {
	resp, err := call[wire.ActivateResponse](ctx, c, wire.ActivateMethod, nil, nil)
	return resp.Implements, err
}

// Call calls any method, such as "VolumeDriver.Get": req is sent as JSON, or nothing at
// all where req is nil, and the answer is decoded into resp, a pointer, unless that is
// nil. An answer with status 200 that carries an error's text is an [*Error] as well,
// where the engine looks for one: in Err for volume, network and log drivers, in Error
// for IPAM drivers, nowhere else.
func (c *Client) Call(ctx context.Context, method string, req, resp any) error {
	body, class, err := c.roundTrip(ctx, method, req)
	if err != nil {
		return err
	}
	if c.opts.Engine != Podman {
		var texts struct{ Err, Error string }
		// What is no object, or has no text there, is judged by resp below.
		_ = decode(body, &texts)
		if text := errorText(method, texts.Err, texts.Error); text != "" {
			return c.refused(method, http.StatusOK, class, text)
		}
	}
	if resp == nil {
		return nil
	}
	return c.decoded(method, decode(body, resp))
}

// call is Call for the typed methods: errText finds the error in a decoded answer.
func call[Resp any](ctx context.Context, c *Client, method string, req any, errText func(*Resp) string) (resp Resp, err error) {
	body, class, err := c.roundTrip(ctx, method, req)
	if err != nil {
		return resp, err
	}
	if err := c.decoded(method, decode(body, &resp)); err != nil {
		var zero Resp
		return zero, err
	}
	if errText != nil && c.opts.Engine != Podman {
		if text := errText(&resp); text != "" {
			return resp, c.refused(method, http.StatusOK, class, text)
		}
	}
	return resp, nil
}
