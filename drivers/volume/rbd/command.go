package rbd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// cluster runs the programs of Ceph against one pool.
type cluster struct {
	c *config

	mu   sync.Mutex
	down time.Time // when it did not answer
	said error
}

// client is the flags by which a program of Ceph finds the cluster and who it is. No secret is
// among them: keys are in keyrings.
func (c *cluster) client() (args []string) {
	for _, f := range [][2]string{{"--conf", c.c.Conf}, {"--id", c.c.User}, {"--keyring", c.c.Keyring}, {"--mon-host", strings.Join(c.c.Monitors, ",")}} {
		if f[1] != "" {
			args = append(args, f[0], f[1])
		}
	}
	return args
}

// spec is how an image is called.
func (c *cluster) spec(image string) string {
	if c.c.RadosNS != "" {
		return c.c.Pool + "/" + c.c.RadosNS + "/" + image
	}
	return c.c.Pool + "/" + image
}

// inPool is the flags of a command that is about the pool.
func (c *cluster) inPool() []string {
	args := []string{"--pool", c.c.Pool}
	if c.c.RadosNS != "" {
		args = append(args, "--namespace", c.c.RadosNS)
	}
	return args
}

// resting is how long a cluster that did not answer is left alone.
const resting = 5 * time.Second

// rbd runs rbd, which is answered soon or not at all.
func (c *cluster) rbd(ctx context.Context, args ...string) ([]byte, error) {
	return c.within(ctx, c.c.Timeout, "rbd", args...)
}

// within runs a program of Ceph. Who asks while the cluster is not answering is told so at once.
func (c *cluster) within(ctx context.Context, limit time.Duration, program string, args ...string) ([]byte, error) {
	c.mu.Lock()
	said := c.said
	if time.Since(c.down) > resting {
		said = nil
	}
	c.mu.Unlock()
	if said != nil {
		return nil, said
	}
	silent := errdefs.Errorf(errdefs.ErrUnavailable, "the cluster does not answer within %s", limit)
	inner, cancel := context.WithTimeoutCause(ctx, limit, silent)
	defer cancel()
	out, err := bounded(inner, program, append(c.client(), args...)...)
	if err == nil {
		return out, nil
	}
	err = classify(err)
	if inner.Err() != nil && ctx.Err() == nil {
		c.mu.Lock()
		c.down, c.said = time.Now(), errdefs.Hint(silent, "look at it: ceph -s")
		err = c.said
		c.mu.Unlock()
	}
	return out, err
}

// longest is how long a command may take that touches every object of an image.
const longest = 24 * time.Hour

// running is a command that may take longer than who waits for it.
type running struct {
	done chan struct{}
	err  error
}

// long runs rbd for as long as it takes. Who does not wait until the end is told that it goes on,
// and joins it by asking again.
func (p *provider) long(ctx context.Context, key string, args ...string) error {
	p.mu.Lock()
	r := p.longs[key]
	if r == nil {
		r = &running{done: make(chan struct{})}
		p.longs[key] = r
		go func() {
			_, r.err = p.within(context.WithoutCancel(ctx), longest, "rbd", args...)
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.longs, key)
			close(r.done)
		}()
	}
	p.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return errdefs.Errorf(errdefs.ErrUnavailable, "rbd %s takes its time, and goes on", args[0])
	}
}

// bounded is [run.Output] for programs that the kernel may not let go, as of one that waits for an
// answer of a file system: they are left to their wait.
func bounded(ctx context.Context, program string, args ...string) ([]byte, error) {
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := run.Output(ctx, nil, program, args...)
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.out, r.err
	case <-time.After(2 * time.Second):
		return nil, errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%s: %w", program, context.Cause(ctx)))
	}
}

// status is the number of the error that a program of Ceph ended with, 0 for none.
func status(err error) syscall.Errno {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return syscall.Errno(exit.ExitCode())
	}
	return 0
}

// classes are what the errors of Ceph come to.
var classes = map[syscall.Errno]error{
	syscall.EPERM: errdefs.ErrDenied, syscall.EACCES: errdefs.ErrDenied, syscall.ENOENT: errdefs.ErrNotFound,
	syscall.EBUSY: errdefs.ErrInUse, syscall.ENOTEMPTY: errdefs.ErrInUse, syscall.EROFS: errdefs.ErrInUse,
	syscall.EEXIST: errdefs.ErrExists, syscall.EINVAL: errdefs.ErrInvalid, syscall.ERANGE: errdefs.ErrInvalid,
	syscall.EDQUOT: errdefs.ErrInvalid, syscall.ENOSPC: errdefs.ErrInvalid, syscall.EOPNOTSUPP: errdefs.ErrUnsupported,
}

// classify gives an error of a program its class, and takes the noise out of its text.
func classify(err error) error {
	class, ok := classes[status(err)]
	// Who has no key, or cannot say who he is, does not get so far as to be refused by name.
	text := err.Error()
	denied := strings.Contains(text, "unable to find a keyring") || strings.Contains(text, "auth: error") ||
		strings.Contains(text, "handle_auth_bad_method") || strings.Contains(text, "no keyring found")
	switch {
	case denied:
		err = errdefs.Hint(errdefs.As(errdefs.ErrDenied, err), "see that user and keyring of the pool belong together, and that the key has the rights in the README of rbd")
	case errors.Is(err, exec.ErrNotFound), strings.HasSuffix(text, "not installed"):
		err = errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "install the programs of Ceph: apt-get install ceph-common")
	case !ok:
		class = errdefs.ErrUnavailable
		fallthrough
	default:
		if errdefs.Class(err) == nil {
			err = errdefs.As(class, err)
		}
	}
	return err
}

// ask runs rbd and decodes what it prints.
func ask[T any](ctx context.Context, c *cluster, args ...string) (v T, err error) {
	out, err := c.rbd(ctx, append(args, "--format", "json")...)
	if err != nil {
		return v, err
	}
	if len(bytes.TrimSpace(out)) == 0 { // as image-meta list prints of an image without any
		return v, nil
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return v, errdefs.Errorf(errdefs.ErrUnavailable, "rbd %s: what it prints is no JSON: %w", args[0], err)
	}
	return v, nil
}

func bytesOf(n int64) string { return strconv.FormatInt(n, 10) + "B" }
