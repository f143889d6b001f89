package conn

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// socket is one connection of a driver. It implements [grpc.ClientConnInterface].
type socket struct {
	*grpc.ClientConn
	d    *Driver
	path string
	// dials counts connections: facts of an earlier one are read anew.
	dials atomic.Int64
	// failed is why the last dial failed, nil after one that did not.
	failed atomic.Pointer[error]
	// met is who gave its name there last.
	met atomic.Pointer[who]
	bad error // the connection could not even be set up
}

// maxMessage bounds an answer: a list of volumes may be long, and a hostile one is not to fill the memory.
const maxMessage = 64 << 20

func (d *Driver) open(path string) *socket {
	s := &socket{d: d, path: path}
	// The target is not resolved, and the path is given to the dialer as it is: no letter of it can be taken
	// for a part of a URL. Drivers compare the authority with "localhost", if with anything.
	cc, err := grpc.NewClient("passthrough:///driver",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // to try again is left to who knows what may be done twice
		grpc.WithIdleTimeout(0),
		grpc.WithStatsHandler(sending{}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: dialTime,
		}),
	)
	s.ClientConn, s.bad = cc, err
	return s
}

// dialTime bounds a connection to a socket that is there and accepts nobody.
const dialTime = 4 * time.Second

func (s *socket) dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", s.path)
	if err != nil {
		s.failed.Store(&err)
		return nil, err
	}
	s.failed.Store(nil)
	s.dials.Add(1)
	return c, nil
}

// live reports whether the connection is up, as far as anybody knows.
func (s *socket) live() bool { return s.bad == nil && s.GetState() == connectivity.Ready }

func (s *socket) close() error {
	if s.bad == nil {
		return s.ClientConn.Close()
	}
	return nil
}

// wake has a connection that failed tried again now, and not when gRPC thinks fit: the driver may have been
// started a moment ago.
func (s *socket) wake(ctx context.Context) {
	if s.GetState() != connectivity.TransientFailure {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wakeTime)
	defer cancel()
	s.ResetConnectBackoff()
	s.WaitForStateChange(ctx, connectivity.TransientFailure)
}

// wakeTime is how long it takes at the most until a dial has begun.
const wakeTime = 200 * time.Millisecond

// unreachable says in a sentence why nobody answers at the socket. text is what gRPC says.
func (s *socket) unreachable(ctx context.Context, text string) error {
	fail := func(hint, format string, args ...any) error {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, format, args...), hint)
	}
	at := s.failed.Load()
	switch {
	case at != nil:
	case strings.Contains(text, "http2: ") || strings.Contains(text, "first settings frame") || plainHTTP(ctx, s.path):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "what listens at the socket %s does not speak gRPC", s.path), "give the path of the driver's socket")
	default:
		return fail("look at the driver's log: it may hang, or be about to end", "nobody answers at the socket %s", s.path)
	}
	const start = "start the driver, or correct the endpoint"
	switch err := *at; {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fail(start, "there is no socket %s", s.path)
	case errors.Is(err, fs.ErrPermission):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "no right to open the socket %s", s.path), "run the daemon as root, or give it the socket's group")
	case errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.ECONNREFUSED) && !isSocket(s.path):
		return fail("give the path of the driver's socket", "%s is not a socket", s.path)
	case errors.Is(err, syscall.EPROTOTYPE):
		return fail("give the path of the driver's socket", "%s is a socket of another kind", s.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail(start, "nobody listens at the socket %s", s.path)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.EAGAIN):
		return fail("see what the driver does, and start it again", "the socket %s accepts nobody", s.path)
	default:
		return fail(start, "socket %s: %w", s.path, errors.Unwrap(err))
	}
}

// plainHTTP reports whether a server of HTTP/1 listens at a socket, such as a plugin of Docker.
func plainHTTP(ctx context.Context, path string) bool {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.WithoutCancel(ctx), "unix", path)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second)) // fails only for a connection that is closed
	answer := make([]byte, len("HTTP/1."))
	if _, err = c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	return err == nil && string(answer) == "HTTP/1."
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeSocket != 0
}

// sending notes in a call's flight when its request has left.
type sending struct{}

type flightKey struct{}

// flight is one RPC.
type flight struct{ sent atomic.Bool }

// TagRPC implements [stats.Handler].
func (sending) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (sending) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutPayload); !ok {
		return
	}
	if f, ok := ctx.Value(flightKey{}).(*flight); ok {
		f.sent.Store(true)
	}
}

// TagConn implements [stats.Handler].
func (sending) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (sending) HandleConn(context.Context, stats.ConnStats) {}
