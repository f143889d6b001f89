package conn

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Invoke implements [grpc.ClientConnInterface]: one RPC, which every client of the driver goes through.
func (s *socket) Invoke(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error {
	rpc := path.Base(method)
	d := s.d
	if s.bad != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", s.path, s.bad)
	}
	if !introduces(rpc) {
		// The driver behind the socket may be another one than at the last call.
		if err := d.meet(ctx, s); err != nil {
			return err
		}
	}
	d.secrets.add(req)
	limit := d.limit(rpc)
	s.wake(ctx)
	began := time.Now()
	f := &flight{}
	bounded, cancel := context.WithTimeout(context.WithValue(ctx, flightKey{}, f), limit)
	err := s.ClientConn.Invoke(bounded, method, req, resp, opts...)
	if introduces(rpc) && status.Code(err) == codes.Unavailable && f.sent.Load() {
		// The connection broke, perhaps long ago, when a driver ended that is back by now. It changes nothing to ask
		// again.
		f.sent.Store(false)
		err = s.ClientConn.Invoke(bounded, method, req, resp, opts...)
	}
	cancel()
	took := time.Since(began)
	if err != nil {
		err = s.explain(ctx, rpc, err, f.sent.Load(), took)
	}
	d.counts.add(rpc, err, took)
	d.trace(ctx, rpc, req, err, took)
	return err
}

// NewStream implements [grpc.ClientConnInterface]. No RPC that is used has a stream.
func (s *socket) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errdefs.Errorf(errdefs.ErrUnsupported, "%s: streams are not used", s.d.name(s))
}

// trace tells the log of a call. What the request says is only looked at if somebody reads it.
func (d *Driver) trace(ctx context.Context, rpc string, req any, err error, took time.Duration) {
	if !d.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	args := []any{"rpc", rpc, "took", took}
	if m, ok := req.(proto.Message); ok {
		args = append(args, "request", Redacted(m))
	}
	if err != nil {
		args = append(args, "error", err)
	}
	d.log.DebugContext(ctx, "csi call", args...)
}

// early is by how much a driver may end a call sooner whose time, which it was told, is over: it has a clock of its
// own for it.
const early = 20 * time.Millisecond

// maxText is how much a driver may say in an error: some put whole command lines into it.
const maxText = 2048

// explain makes of what gRPC says an [Error].
func (s *socket) explain(ctx context.Context, rpc string, err error, sent bool, took time.Duration) error {
	d := s.d
	st := status.Convert(err)
	e := &Error{Driver: d.name(s), RPC: rpc, Code: st.Code(), Sent: sent}
	e.Text = clean(errdefs.OneLine(d.secrets.strip(st.Message())), maxText)
	if sent {
		e.Code = d.quirks().Code(rpc, st.Code(), st.Message())
	}
	timeUp := took >= d.limit(rpc)-early
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= early {
		e.late = true
	}
	if st.Code() == codes.Canceled && (timeUp || e.late) { // so gRPC on this side has it where the driver's clock was first
		e.Code = codes.DeadlineExceeded
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		e.Code, e.Text, e.cause = codes.Canceled, "", context.Canceled
	case !sent && (st.Code() == codes.Unavailable || e.Code == codes.DeadlineExceeded):
		e.Text, e.cause = "", s.unreachable(ctx, st.Message())
	case e.Code == codes.DeadlineExceeded && timeUp:
		e.Text, e.limit = "", d.limit(rpc)
	case st.Code() == codes.ResourceExhausted && strings.HasPrefix(st.Message(), "grpc: received message larger"):
		e.Code = codes.Internal // it is gRPC on this side that says so, of an answer: something was done
	}
	return e.finish()
}
