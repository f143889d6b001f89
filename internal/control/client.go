package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Client calls a running daemon. Its methods are those of [Volumes], [Storage] and [Daemon], with the
// same errors; beyond them ErrUnavailable when no daemon listens, and ErrDenied when the
// caller may not use the socket. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// A Client stands in for the daemon.
var (
	_ Volumes = clientVolumes{}
	_ Daemon  = (*Client)(nil)
)

// dialTime bounds how long a daemon may take to be there at all.
const dialTime = 5 * time.Second

// NewClient returns a client of the daemon that listens on socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close gives up connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Volumes returns the methods about volumes.
func (c *Client) Volumes() Volumes { return clientVolumes{c} }

type clientVolumes struct{ c *Client }

// Create implements [Volumes].
func (v clientVolumes) Create(ctx context.Context, req VolumeCreateRequest) (Volume, error) {
	return call[Volume](ctx, v.c, MethodVolumeCreate, req)
}

// List implements [Volumes].
func (v clientVolumes) List(ctx context.Context, req VolumeListRequest) ([]Volume, error) {
	l, err := call[VolumeList](ctx, v.c, MethodVolumeList, req)
	return l.Volumes, err
}

// Inspect implements [Volumes].
func (v clientVolumes) Inspect(ctx context.Context, req VolumeRequest) (Volume, error) {
	return call[Volume](ctx, v.c, MethodVolumeInspect, req)
}

// Remove implements [Volumes].
func (v clientVolumes) Remove(ctx context.Context, req VolumeRemoveRequest) error {
	_, err := call[struct{}](ctx, v.c, MethodVolumeRemove, req)
	return err
}

// Mount implements [Volumes].
func (v clientVolumes) Mount(ctx context.Context, req VolumeMountRequest) (string, error) {
	m, err := call[Mountpoint](ctx, v.c, MethodVolumeMount, req)
	return m.Mountpoint, err
}

// Unmount implements [Volumes].
func (v clientVolumes) Unmount(ctx context.Context, req VolumeMountRequest) error {
	_, err := call[struct{}](ctx, v.c, MethodVolumeUnmount, req)
	return err
}

// Path implements [Volumes].
func (v clientVolumes) Path(ctx context.Context, req VolumeRequest) (string, error) {
	m, err := call[Mountpoint](ctx, v.c, MethodVolumePath, req)
	return m.Mountpoint, err
}

// Status implements [Daemon].
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, MethodStatus, struct{}{})
}

// Reload implements [Daemon].
func (c *Client) Reload(ctx context.Context) (Reload, error) {
	return call[Reload](ctx, c, MethodReload, struct{}{})
}

// Reconcile implements [Daemon].
func (c *Client) Reconcile(ctx context.Context, progress func(Progress)) (Reconcile, error) {
	return follow[Reconcile](ctx, c, MethodReconcile, struct{}{}, progressOf(progress))
}

// Page returns what GET of a path answers, such as "/readyz", and whether its status was
// a success.
func (c *Client) Page(ctx context.Context, path string) (text string, ok bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://remora"+path, nil)
	if err != nil {
		return "", false, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", false, c.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.StatusCode == http.StatusOK, err
}

// call sends one request and decodes its answer.
func call[Resp any](ctx context.Context, c *Client, method string, req any) (Resp, error) {
	var out Resp
	resp, err := c.post(ctx, method, req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out, errdefs.Errorf(errdefs.ErrUnavailable, "daemon: answer to %s: %w", method, err)
	}
	return out, nil
}

// post sends a request, and makes an error of an answer that is one.
func (c *Client) post(ctx context.Context, method string, req any) (*http.Response, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, method, "", bytes.NewReader(body))
}

// send posts a body, and makes an error of an answer that is one.
func (c *Client) send(ctx context.Context, method, query string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://remora/"+method+query, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&e); err != nil || e.Error == "" {
		return nil, fmt.Errorf("daemon: answers %s to %s", resp.Status, method)
	}
	return nil, e.toError()
}

// ErrUnreachable marks the errors of a daemon that could not be asked at all.
var ErrUnreachable = errors.New("daemon unreachable")

// unreachable says for a person why there was no answer.
func (c *Client) unreachable(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the rest is an address that nobody typed
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrPermission):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "daemon: %s: permission denied", c.socket),
			"run as root, or have the daemon give the socket to a group of yours: control.group")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return errdefs.Hint(errdefs.As(ErrUnreachable, errdefs.Errorf(errdefs.ErrUnavailable, "daemon: went away before it answered")),
			"start it again, and give the command again")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		err = errdefs.Errorf(errdefs.ErrUnavailable, "daemon: nobody listens on %s", c.socket)
		return errdefs.Hint(errdefs.As(ErrUnreachable, err), "start it: remora daemon, or systemctl start remora")
	}
	return errdefs.As(ErrUnreachable, errdefs.Errorf(errdefs.ErrUnavailable, "daemon: %w", err))
}

// toError makes the error of the other side one of this side.
func (e Error) toError() error {
	err := errdefs.Named(e.Class, errors.New(e.Error))
	for _, hint := range slices.Backward(e.Hints) {
		err = errdefs.Hint(err, hint)
	}
	return err
}
