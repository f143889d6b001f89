package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// podmanType is the Content-Type of Podman's requests (podman libpod/plugin).
const podmanType = "application/vnd.docker.plugins.v1.1+json"

// roundTrip sends one call, again where that is asked for, and returns the body of an
// answer with status 200 and the class that it named.
func (c *Client) roundTrip(ctx context.Context, method string, req any) (body []byte, class string, err error) {
	if strings.ContainsAny(method, "/?#% ") || method == "" {
		return nil, "", errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: method %q: not the name of a method", c.name, method)
	}
	var sent []byte
	if req != nil {
		if sent, err = c.encode(req); err != nil {
			return nil, "", errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: %s: encode request: %w", c.name, method, err)
		}
	}
	var status int
	try := func() (err error) {
		body, class, status, err = c.attempt(ctx, method, sent)
		return err
	}
	if c.opts.Retry && c.opts.Engine != Podman {
		err = backOff(ctx, try, func(err error, wait time.Duration) bool {
			if !noAnswer(err) {
				return false
			}
			c.opts.Logger.WarnContext(ctx, "plugin gave no answer, trying again", slog.String("plugin", c.name),
				slog.String("method", method), slog.Duration("wait", wait), slog.String("error", err.Error()))
			return true
		})
	} else {
		err = try()
	}
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("plugin %q: %s: %w", c.name, method, err)
	case status != http.StatusOK:
		return nil, "", c.refused(method, status, class, "", body...)
	}
	return body, class, nil
}

// attempt sends one request and reads the answer.
func (c *Client) attempt(ctx context.Context, method string, sent []byte) (body []byte, class string, status int, err error) {
	caller, start := ctx, time.Now()
	defer func() {
		c.observe(Exchange{Method: method, Request: sent, Status: status, Answer: body, Err: err}, start)
	}()
	if d := c.limit(method); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, errdefs.Errorf(context.DeadlineExceeded, "no answer within %s", d))
		defer cancel()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/"+method, bytes.NewReader(sent))
	if err != nil {
		return nil, "", 0, errdefs.As(errdefs.ErrInvalid, err)
	}
	if c.opts.Engine == Podman {
		r.Header.Set("Content-Type", podmanType)
	} else {
		r.Header.Set("Accept", wire.MediaType)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, "", 0, transport(caller, ctx, err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, c.opts.MaxAnswer+1))
	if err != nil {
		return nil, "", 0, transport(caller, ctx, fmt.Errorf("read answer: %w", err))
	}
	if int64(len(body)) > c.opts.MaxAnswer {
		return nil, "", 0, fmt.Errorf("answer is larger than %d bytes", c.opts.MaxAnswer)
	}
	return body, resp.Header.Get(wire.ClassHeader), resp.StatusCode, nil
}

// limit returns how long one attempt may take; 0 is for ever. The engine's limits are
// those of moby volume/drivers/proxy.go.
func (c *Client) limit(method string) time.Duration {
	switch {
	case c.opts.Timeout != 0:
		return max(c.opts.Timeout, 0)
	case c.opts.Engine == Podman:
		return podmanTime
	case method == wire.VolumeCreate || method == wire.VolumeMount:
		return 2 * time.Minute
	case strings.HasPrefix(method, wire.VolumeDriver+"."):
		return time.Minute
	}
	return 0
}

// encode writes JSON as the engine does: dockerd ends it with a newline.
func (c *Client) encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if c.opts.Engine == Docker {
		b = append(b, '\n')
	}
	return b, err
}

// decode reads one JSON value and leaves what follows it, as the engine does.
func decode(body []byte, v any) error {
	err := json.NewDecoder(bytes.NewReader(body)).Decode(v)
	if errors.Is(err, io.EOF) {
		return errors.New("empty")
	}
	return err
}

// decoded puts the call before an error of decode.
func (c *Client) decoded(method string, err error) error {
	if err != nil {
		return fmt.Errorf("plugin %q: %s: answer is not the JSON of this method: %w", c.name, method, err)
	}
	return nil
}
