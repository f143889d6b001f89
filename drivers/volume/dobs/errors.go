package dobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// answer is an error that DigitalOcean answered with.
type answer struct {
	text   string
	status int
	said   string // by DigitalOcean, in lower case
}

func (e *answer) Error() string { return e.text }

// statusOf returns the status of an answer, 0 if there was none.
func statusOf(err error) int {
	if a, ok := errors.AsType[*answer](err); ok {
		return a.status
	}
	return 0
}

// textOf returns what an answer says, in lower case.
func textOf(err error) string {
	if a, ok := errors.AsType[*answer](err); ok {
		return a.said
	}
	return ""
}

// alreadyThere tells whether a name was refused that something else has.
func alreadyThere(err error) bool {
	return (statusOf(err) == http.StatusConflict || statusOf(err) == http.StatusUnprocessableEntity) && strings.Contains(textOf(err), "already exist")
}

const faulty = "this is a fault of DigitalOcean's, which is asked again; https://status.digitalocean.com tells of larger ones"

const quota = "ask DigitalOcean's support for a larger limit, or remove what is not needed"

// meaning is the class of an answer, and what a person can do.
type meaning struct {
	class error
	hint  string
}

// meaningOf returns what an answer means. Answers have no codes but the
// status: the rest is in the text.
func meaningOf(status int, said string) meaning {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(said, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("required permission"):
		return meaning{errdefs.ErrDenied, "the token lacks a scope; the driver's page has those that it needs"}
	case status == http.StatusUnauthorized:
		return meaning{errdefs.ErrDenied, "the token is wrong, was revoked or has expired; make one at https://cloud.digitalocean.com/account/api/tokens"}
	case (status == http.StatusForbidden || status == http.StatusUnprocessableEntity) && has("limit", "quota", "capacity"):
		return meaning{errdefs.ErrInvalid, quota}
	case status == http.StatusForbidden:
		return meaning{errdefs.ErrDenied, "the token does not allow it; the driver's page has the scopes that it needs"}
	case status == http.StatusPaymentRequired:
		return meaning{errdefs.ErrDenied, "look at the account's billing"}
	case status == http.StatusNotFound, status == http.StatusGone:
		return meaning{errdefs.ErrNotFound, ""}
	case status == http.StatusConflict, status == http.StatusLocked:
		return meaning{errdefs.ErrInUse, ""}
	// A droplet does one thing at a time, whichever disk it is about.
	case status == http.StatusUnprocessableEntity && has("droplet already has a pending", "droplet is locked", "event in progress"):
		return meaning{errdefs.ErrUnavailable, "the droplet is at work on something else, which it ends first: doctl compute droplet-action list"}
	case status == http.StatusUnprocessableEntity && has("already attached", "pending event", "attached to a droplet"):
		return meaning{errdefs.ErrInUse, ""}
	case status == http.StatusPreconditionFailed:
		return meaning{errdefs.ErrInUse, ""}
	case status == http.StatusRequestTimeout, status >= http.StatusInternalServerError:
		return meaning{errdefs.ErrUnavailable, faulty}
	case status < http.StatusBadRequest:
		return meaning{errdefs.ErrUnavailable, "is endpoint right?"}
	}
	return meaning{errdefs.ErrInvalid, ""}
}

// explain makes of an error of godo one of a class, on one line.
func (p *provider) explain(ctx context.Context, call string, err error) error {
	if err == nil {
		return nil
	}
	where := "DigitalOcean, " + call
	e, ok := errors.AsType[*godo.ErrorResponse](err)
	if !ok || e.Response == nil {
		return unanswered(ctx, where, err)
	}
	a := &answer{status: e.Response.StatusCode, said: strings.ToLower(e.Message)}
	a.text = fmt.Sprintf("%s: %d %s", where, a.status, short(e.Message))
	if e.RequestID != "" {
		a.text += " (request " + short(e.RequestID) + ")"
	}
	if a.status == http.StatusTooManyRequests {
		return block.Throttled(a, retryAfter(e.Response.Header))
	}
	if a.status == http.StatusUnauthorized && p.token.changed() {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "%w; there is a new token in %s", a, p.token.file), "ask again: the new one is used from now on")
	}
	if a.said == "" || strings.HasPrefix(strings.TrimSpace(a.said), "<") { // of a proxy, which knows nothing of what is there
		return block.Stranger(fmt.Errorf("%w: this is no answer of DigitalOcean", a))
	}
	m := meaningOf(a.status, a.said)
	if m.hint == "" {
		return errdefs.As(m.class, a)
	}
	return errdefs.Hint(errdefs.As(m.class, a), m.hint)
}

// short keeps a page of HTML of some proxy from being an error.
func short(text string) string {
	text = strings.TrimSpace(errdefs.OneLine(text))
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}

// retryAfter tells how long DigitalOcean wants not to be asked.
func retryAfter(h http.Header) time.Duration {
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n >= 0 {
		return time.Duration(n) * time.Second
	}
	if at, err := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64); err == nil {
		return min(max(time.Until(time.Unix(at, 0)), 0), time.Minute)
	}
	return 0
}

// unanswered is a request that got no answer, or one that nobody can read.
func unanswered(ctx context.Context, where string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return block.Unanswered(where, "", err)
}
