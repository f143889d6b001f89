// Package rpc turns a function from a request to an answer into the HTTP handler of
// one plugin method. All that Docker's transport asks of a plugin is here, once for
// all kinds: POST alone, no Content-Type or Host required, bodies bounded, errors as
// status 500 with the text where each engine looks for it, panics as errors.
package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// DefaultMaxBody bounds a request in bytes where [Method.MaxBody] is zero.
const DefaultMaxBody = 1 << 20

// bodyTime bounds how long a caller may take to send its body.
const bodyTime = 30 * time.Second

// ErrNoAnswer, returned by a method, drops the connection without an answer. To an
// engine that is a plugin out of reach rather than one that said no: it tries again
// for 15 seconds and keeps what it knew.
var ErrNoAnswer = errors.New("no answer")

// Method describes one method of the protocol.
type Method struct {
	// Name is the full name, such as "VolumeDriver.Create".
	Name string
	// NoArgument: an empty body is right, as the method has no argument or needs none.
	// Of any other method an empty body is refused: it is how an engine repeats a call
	// after a broken connection.
	NoArgument bool
	// EmptyIsLost: an empty body is not refused but dropped without an answer, since an
	// engine would take the refusal for an answer to the call that it repeats.
	EmptyIsLost bool
	// MaxBody bounds the request in bytes; 0 is DefaultMaxBody.
	MaxBody int64
	// ErrorBody makes the body of an error answer; nil is [wire.Error].
	ErrorBody func(text string) any
	// Advise adds the hints of an error to its text: an engine shows that alone.
	Advise bool
}

// text is what an engine is told of err, on one line.
func (m Method) text(err error) string {
	parts := []string{err.Error()}
	if m.Advise {
		parts = append(parts, errdefs.Hints(err)...)
	}
	return errdefs.OneLine(strings.Join(parts, "; "))
}

// Hooks is what every kind's Options lend to its methods. The zero value is silent.
type Hooks struct {
	Logger  *slog.Logger
	Observe sdk.Observer
}

// Handle returns the handler of method m. call is run with the request's context, which
// ends when the caller hangs up. object names what a request is about, for logs and
// metrics; nil is nothing.
func Handle[Req, Resp any](h Hooks, m Method, object func(*Req) string, call func(context.Context, *Req) (Resp, error)) http.Handler {
	if h.Logger == nil {
		h.Logger = slog.New(slog.DiscardHandler)
	}
	if m.MaxBody == 0 {
		m.MaxBody = DefaultMaxBody
	}
	if m.ErrorBody == nil {
		m.ErrorBody = func(text string) any { return wire.Error{Err: text} }
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		req := new(Req)
		status, err := read(w, r, m, req)
		var name string
		var resp Resp
		answered := false
		caller := bounded.NewCaller(func(err error) { //nolint:contextcheck // it has the request's
			answered = true
			h.finish(r.Context(), m.Name, name, start, err)
			w.Header().Set("Connection", "close") // it is taken as long as the driver has the call
			Fail(w, status, err, m.ErrorBody(m.text(err)))
			_ = http.NewResponseController(w).Flush() // where that cannot be, the server does it later
		})
		defer caller.Answered()
		if err == nil {
			if object != nil {
				name = object(req)
			}
			status = http.StatusInternalServerError
			resp, err = guard(caller.With(r.Context()), h.Logger, m.Name, req, call)
		}
		if answered {
			return
		}
		if errors.Is(err, ErrNoAnswer) {
			h.finish(r.Context(), m.Name, name, start, err)
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			Fail(w, status, err, m.ErrorBody(m.text(err)))
		} else if err = write(w, resp); err != nil {
			err = fmt.Errorf("write answer: %w", err)
		}
		h.finish(r.Context(), m.Name, name, start, err)
	})
}

// finish logs an error and tells the observer.
func (h Hooks) finish(ctx context.Context, method, object string, start time.Time, err error) {
	took := time.Since(start)
	if err != nil {
		h.Logger.LogAttrs(ctx, level(err), "call failed", slog.String("method", method), slog.String("object", object),
			slog.Duration("took", took), slog.String("class", errdefs.Name(err)), slog.String("error", errdefs.OneLine(err.Error())),
			slog.Any("hints", errdefs.Hints(err)))
	}
	if err == nil && h.Logger.Enabled(ctx, slog.LevelDebug) {
		h.Logger.LogAttrs(ctx, slog.LevelDebug, "call answered", slog.String("method", method), slog.String("object", object),
			slog.Duration("took", took))
	}
	if h.Observe != nil {
		h.Observe(ctx, sdk.Call{Method: method, Object: object, Took: took, Err: err})
	}
}

// level says who should hear of an error: an operator of what is broken here, nobody
// in particular of a question answered with no.
func level(err error) slog.Level {
	is := func(classes ...error) bool { return slices.Contains(classes, errdefs.Class(err)) }
	switch {
	case is(errdefs.ErrNotFound):
		return slog.LevelDebug // an engine asks before it creates
	case is(errdefs.ErrExists, errdefs.ErrInUse, errdefs.ErrInvalid, errdefs.ErrUnsupported, context.Canceled):
		return slog.LevelInfo
	case is(errdefs.ErrUnavailable, errdefs.ErrDenied, context.DeadlineExceeded):
		return slog.LevelWarn
	}
	return slog.LevelError
}

// read decodes the body into req, and says with which status it is refused otherwise.
func read(w http.ResponseWriter, r *http.Request, m Method, req any) (int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, errdefs.Errorf(errdefs.ErrInvalid, "%s: use POST, not %.20q", m.Name, r.Method)
	}
	if r.ContentLength > m.MaxBody {
		return http.StatusRequestEntityTooLarge, tooLarge(m)
	}
	var body []byte
	if r.ContentLength != 0 {
		// A recorder in a test has no deadlines; then there is no slow caller either.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		var err error
		if body, err = readBody(w, r, m.MaxBody); err != nil {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				return http.StatusRequestEntityTooLarge, tooLarge(m)
			}
			return http.StatusBadRequest, errdefs.Errorf(errdefs.ErrInvalid, "%s: read request: %w", m.Name, err)
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		if m.NoArgument {
			return 0, nil
		}
		if m.EmptyIsLost {
			return 0, errdefs.Errorf(errdefs.ErrInvalid, "%w: %s: request without a body", ErrNoAnswer, m.Name)
		}
		return http.StatusBadRequest, errdefs.Errorf(errdefs.ErrInvalid,
			"%s: request without a body, nothing was done (an engine repeats a call in this way when the answer was lost; try again)", m.Name)
	}
	if err := json.Unmarshal(body, req); err != nil {
		return http.StatusBadRequest, errdefs.Errorf(errdefs.ErrInvalid, "%s: request is not the JSON of this method: %w", m.Name, err)
	}
	return 0, nil
}

// usualBody is the size in bytes up to which there is room for a body before it has come. More
// is made as it comes: a caller may announce much and send nothing.
const usualBody = 64 << 10

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if 0 < r.ContentLength && r.ContentLength <= usualBody {
		body := make([]byte, r.ContentLength)
		_, err := io.ReadFull(r.Body, body)
		return body, err
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
}

func tooLarge(m Method) error {
	return errdefs.Errorf(errdefs.ErrInvalid, "%s: request is larger than %d bytes", m.Name, m.MaxBody)
}

// guard runs call and makes an error of a panic.
func guard[Req, Resp any](ctx context.Context, log *slog.Logger, method string, req *Req, call func(context.Context, *Req) (Resp, error)) (resp Resp, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.ErrorContext(ctx, "panic", slog.String("method", method), slog.String("panic", errdefs.Recovered(p)), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("%s: internal error: the plugin panicked, its log says where", method)
		}
	}()
	return call(ctx, req)
}

// write answers with status 200, the only one that an engine takes for success.
func write(w http.ResponseWriter, resp any) error {
	if raw, ok := resp.(Raw); ok {
		return send(w, http.StatusOK, raw)
	}
	body, err := json.Marshal(resp)
	if err != nil {
		Fail(w, http.StatusInternalServerError, err, wire.Error{Err: "encode answer: " + err.Error()})
		return err
	}
	return send(w, http.StatusOK, append(body, '\n'))
}

// Raw is an answer that is encoded already, the final newline included.
type Raw []byte

// Fail answers with an error status and the JSON of body, and names the class of err
// in a header for clients of this SDK.
func Fail(w http.ResponseWriter, status int, err error, body any) {
	w.Header().Set(wire.ClassHeader, errdefs.Name(err))
	b, mErr := json.Marshal(body)
	if mErr != nil {
		b = []byte(`{"Err":"internal error"}`)
	}
	_ = send(w, status, append(b, '\n')) // the caller is gone: nobody is left to tell
}

func send(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", wire.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, err := w.Write(body)
	return err
}
