// Package authz makes a Docker authorization plugin out of one function that says
// yes or no.
//
// An engine started with "--authorization-plugin NAME" asks before each request to its
// API, and again before the answer leaves. An [Authorizer] answers the first question
// and, if it is a [ResponseAuthorizer] too, the second. [Handler] stands in front of it
// and does once what every such plugin needs, and what several of them got wrong:
//
//   - it denies unless told to allow: on the zero [Decision], an error, a panic, and when
//     the time is up;
//   - it normalises the path, so that a rule meets one spelling of each route;
//   - it denies a request whose meaning lies in a body that the engine did not pass on
//     (CVE-2024-41110, CVE-2026-34040), or lies in a form, which no engine passes on;
//   - it denies a body that says a thing twice, and [Request.DecodeBody] reads the rest as
//     the engine does, whatever the case of a key;
//   - it takes the passwords of "docker login" away before anybody can log them;
//   - it bounds the memory that concurrent requests may take.
//
// # What an authorizer cannot do
//
// It sees the user only where the client came by TLS with a certificate; on the unix
// socket nobody has a name. It sees neither tar streams (build contexts, image archives,
// "docker cp") nor what flows through attach and exec after they began, nor gRPC calls
// inside /grpc and /session: allow those routes as what they are, access to the host. It
// cannot change a request. An answer denied by a ResponseAuthorizer was carried out all
// the same; use that to hide output, not to prevent.
//
// It must not call the engine that is asking: that call would be asked about as well.
//
// Source: moby pkg/authorization, and the pages of docs.docker.com on access
// authorization plugins.
package authz

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/url"
)

// Authorizer decides whether an engine may carry a request out. It is safe for
// concurrent use.
type Authorizer interface {
	// Authorize returns [Allow] or [Deny]. The client of a denied request sees status 403
	// and the message. An error denies as well: one of class ErrDenied or ErrInvalid like
	// a Deny with its text, any other with status 500, as the fault is the plugin's.
	//
	// When ctx ends nobody waits for the decision any more, and it has been taken: denied.
	Authorize(ctx context.Context, r *Request) (Decision, error)
}

// ResponseAuthorizer is implemented by an [Authorizer] that also looks at answers.
// Without it every answer passes.
type ResponseAuthorizer interface {
	// AuthorizeResponse is asked when the request r has been carried out, before its
	// answer (or what is left of it) goes out. Errors and ctx are as in Authorize.
	AuthorizeResponse(ctx context.Context, r *Request, answer *Response) (Decision, error)
}

// Func is an [Authorizer] made of a function.
type Func func(ctx context.Context, r *Request) (Decision, error)

// Authorize calls f.
func (f Func) Authorize(ctx context.Context, r *Request) (Decision, error) { return f(ctx, r) }

// Decision is [Allow] or [Deny]. The zero value denies.
type Decision struct {
	allow bool
	msg   string
}

// Allow lets the request pass.
func Allow() Decision { return Decision{allow: true} }

// Deny refuses the request. msg is shown to the user behind "authorization denied by
// plugin NAME: "; say what would have been allowed. The Handler folds it onto one line.
// It goes to whoever sent the request: leave out what they must not know.
func Deny(msg string) Decision { return Decision{msg: msg} }

// Allowed reports whether d lets the request pass.
func (d Decision) Allowed() bool { return d.allow }

// Message is what the user is told of a denial.
func (d Decision) Message() string {
	if d.msg == "" && !d.allow {
		return "not allowed"
	}
	return d.msg
}

// Request is one request to the API of an engine. It and all in it must not be changed.
type Request struct {
	// User is the common name of the client's certificate, "" where there is none, as
	// always on a unix socket. AuthMethod is "TLS" or "".
	User       string
	AuthMethod string
	// Method is the HTTP method, such as "POST".
	Method string
	// URI is the request target as the client sent it. It is here for audit logs: rules
	// belong on Path and Query.
	URI string
	// Path is the path of the target as the engine's router sees it: no scheme and host,
	// percent-encoding decoded, no empty or dot segments, no final slash, and no version
	// prefix. It begins with a slash, except for the target "*".
	Path string
	// Version is the API version that stood in front of Path, such as "1.41", or "".
	Version string
	// Query holds the parameters behind Path; of several values an engine takes the
	// first, as Query.Get does. See [Request.Flag].
	Query url.Values
	// Headers has one value for each header, the last that was sent. Authorization and
	// X-Registry-* are never among them, and Transfer-Encoding is not.
	Headers http.Header
	// Body is the JSON that the engine will read. Rules read it with [Request.DecodeBody];
	// to search it as text is to be fooled.
	Body []byte
	// BodyMissing says that the engine may read a body that is not in Body: a stream that
	// is not JSON (build, load, cp), the password of a login, or an optional body that
	// may have been left out or kept back (commit, push). Any other request without the
	// body it needs is denied before the Authorizer is asked.
	//
	// Where it is set, Query may not be the whole truth either: an engine takes parameters
	// from a form in the body first, and of two Content-Types it shows the last and obeys
	// the first. Decide on Path, or deny.
	BodyMissing bool
	// PeerCertificates is the chain that the client showed, its own certificate first.
	PeerCertificates []*x509.Certificate
}

// Response is an engine's answer to a request.
type Response struct {
	// Status is the HTTP status, or 0 when it has gone out already or the engine failed
	// to carry the request out.
	Status int
	// Headers is empty when they have gone out already.
	Headers http.Header
	// Body is a JSON answer, or the end of one: an engine holds back 64 KiB, and nothing
	// of a stream. It is nil for the answer to a login, which holds a token.
	Body []byte
}

// LogValue leaves out what may hold a secret: the query, the headers and the body.
func (r *Request) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", r.User), slog.String("method", r.Method),
		slog.String("path", r.Path), slog.String("version", r.Version))
}

// LogValue leaves out the headers and the body.
func (a *Response) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("status", a.Status))
}
