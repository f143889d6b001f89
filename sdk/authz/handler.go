package authz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/rpc"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

const (
	// DefaultTimeout bounds one decision. An engine has no limit of its own.
	DefaultTimeout = 10 * time.Second
	// DefaultMaxBody bounds one call in bytes. An engine passes on bodies up to 4 MiB,
	// which are a third larger on the way, and in AuthZRes comes one more.
	DefaultMaxBody = 16 << 20
	// DefaultMaxMemory bounds the bodies of all calls at work, in bytes.
	DefaultMaxMemory = 128 << 20
)

// Options adjusts a [Handler]. The zero value is right for most.
type Options struct {
	// Logger is told of denials (Info), errors and panics; nil is silent. No body, query
	// or header of a request is ever logged.
	Logger *slog.Logger
	// Observe is told of each call; for one that was denied Call.Err is ErrDenied.
	Observe sdk.Observer
	// Timeout bounds one decision; when it is up the request is denied. 0 is DefaultTimeout.
	Timeout time.Duration
	// MaxBody bounds one call in bytes; what is larger is denied. 0 is DefaultMaxBody.
	MaxBody int64
	// MaxMemory bounds the bodies of all calls at work, in bytes; further calls wait for
	// Timeout and are then denied. 0 is DefaultMaxMemory; it is at least MaxBody.
	MaxMemory int64
	// AllowMissingBody says of a request whose body was not passed on that the Authorizer
	// is to be asked about it; nil says so of none. Such a request has BodyMissing set.
	AllowMissingBody func(r *Request) bool
	// AllowDuplicateKeys leaves a body that says a thing twice to the Authorizer.
	AllowDuplicateKeys bool
}

// Handler serves one [Authorizer] as an authorization plugin. It is an [sdk.Plugin], safe
// for concurrent use.
type Handler struct {
	authorizer Authorizer
	opts       Options
	log        *slog.Logger
	memory     *budget
}

var _ sdk.Plugin = (*Handler)(nil)

// NewHandler returns a Handler of a. It panics when a is nil, as an authorizer that is
// not there is a mistake to be seen at start.
func NewHandler(a Authorizer, opts Options) *Handler {
	if a == nil {
		panic("authz: NewHandler without an Authorizer")
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.MaxBody <= 0 {
		opts.MaxBody = DefaultMaxBody
	}
	if opts.MaxMemory <= 0 {
		opts.MaxMemory = DefaultMaxMemory
	}
	return &Handler{
		authorizer: a, opts: opts, log: opts.Logger,
		memory: &budget{free: max(opts.MaxMemory, opts.MaxBody)},
	}
}

// Implements returns "authz".
func (h *Handler) Implements() string { return wire.AuthZ }

// Methods returns the handlers of AuthZPlugin.AuthZReq and AuthZPlugin.AuthZRes.
func (h *Handler) Methods() map[string]http.Handler {
	hooks := rpc.Hooks{Logger: h.log, Observe: h.observe}
	object := func(r *wire.AuthZRequest) string {
		target, err := parseTarget(r.RequestURI)
		if err != nil {
			return r.RequestMethod
		}
		return r.RequestMethod + " " + target.path
	}
	method := func(name string, ask func(context.Context, *wire.AuthZRequest) (Decision, error)) http.Handler {
		return h.bounded(rpc.Handle(hooks, rpc.Method{Name: name, MaxBody: h.opts.MaxBody}, object,
			func(ctx context.Context, r *wire.AuthZRequest) (wire.AuthZResponse, error) {
				return h.answer(ctx, name, r, ask)
			}))
	}
	return map[string]http.Handler{
		wire.AuthZReq: method(wire.AuthZReq, h.request),
		wire.AuthZRes: method(wire.AuthZRes, h.response),
	}
}

// request decides about a request.
func (h *Handler) request(ctx context.Context, w *wire.AuthZRequest) (Decision, error) {
	r, err := toRequest(w)
	if err != nil {
		return Decision{}, err
	}
	if err := h.checkBody(r); err != nil {
		return Decision{}, err
	}
	return h.ask(ctx, func(ctx context.Context) (Decision, error) { return h.authorizer.Authorize(ctx, r) })
}

// response decides about an answer.
func (h *Handler) response(ctx context.Context, w *wire.AuthZRequest) (Decision, error) {
	a, ok := h.authorizer.(ResponseAuthorizer)
	if !ok {
		return Allow(), nil
	}
	r, err := toRequest(w)
	if err != nil {
		return Decision{}, err
	}
	answer := toResponse(w)
	if bodyNeed(r) == secret {
		r.Body, answer.Body, r.BodyMissing = nil, nil, true
	}
	r.BodyMissing = r.BodyMissing || len(r.Body) == 0 && bodyNeed(r) != noBody
	return h.ask(ctx, func(ctx context.Context) (Decision, error) { return a.AuthorizeResponse(ctx, r, answer) })
}

// ask runs f for at most the time of a decision. f goes on in its own goroutine when the
// time is up, as there is no way to stop it; the memory of its request stays counted.
func (h *Handler) ask(ctx context.Context, f func(context.Context) (Decision, error)) (Decision, error) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, h.opts.Timeout)
	defer cancel()
	type result struct {
		Decision
		error
	}
	done := make(chan result, 1)
	release := hold(ctx)
	go func() {
		r := result{error: errors.New("internal error: the authorizer ended its goroutine")}
		defer func() {
			if p := recover(); p != nil {
				h.log.ErrorContext(ctx, "panic", slog.String("panic", errdefs.Recovered(p)), slog.String("stack", string(debug.Stack())))
				r = result{error: errors.New("internal error: the authorizer panicked, its log says where")}
			}
			done <- r
			release()
		}()
		d, err := f(ctx)
		r = result{d, err}
	}()
	select {
	case r := <-done:
		if r.error != nil {
			return Decision{}, r.error
		}
		return r.Decision, nil
	case <-ctx.Done():
		if err := parent.Err(); err != nil {
			return Decision{}, fmt.Errorf("the engine hung up: %w", err)
		}
		return Decision{}, errdefs.Errorf(context.DeadlineExceeded, "no decision within %v", h.opts.Timeout)
	}
}

// answer makes the answer on the wire. Whatever is no clear yes is a no: with status 200
// where the request is at fault, which clients see as 403, else as an error, which an
// engine takes for a denial too.
func (h *Handler) answer(ctx context.Context, method string, w *wire.AuthZRequest,
	ask func(context.Context, *wire.AuthZRequest) (Decision, error),
) (wire.AuthZResponse, error) {
	d, err := ask(ctx, w)
	switch {
	case err == nil:
	case errors.Is(err, errdefs.ErrDenied) || errors.Is(err, errdefs.ErrInvalid):
		d = Deny(err.Error())
	default:
		return wire.AuthZResponse{}, &cleanError{err}
	}
	if d.Allowed() {
		return wire.AuthZResponse{Allow: true}, nil
	}
	msg := clean(d.Message())
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.denied = errdefs.Errorf(errdefs.ErrDenied, "%s", msg)
	}
	path := ""
	if target, err := parseTarget(w.RequestURI); err == nil {
		path = target.path
	}
	h.log.InfoContext(ctx, "denied", slog.String("method", method), slog.String("user", w.User),
		slog.String("request", w.RequestMethod+" "+path), slog.String("reason", msg))
	return wire.AuthZResponse{Msg: msg}, nil
}

// observe tells the observer of a denial, too, which to package rpc is an answer like
// any other.
func (h *Handler) observe(ctx context.Context, made sdk.Call) {
	if h.opts.Observe == nil {
		return
	}
	if c, ok := ctx.Value(callKey{}).(*call); ok && made.Err == nil {
		made.Err = c.denied
	}
	h.opts.Observe(ctx, made)
}
