package cinder

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// answer is an error that the cloud answered with.
type answer struct {
	where, text string
	status      int
}

func (e *answer) Error() string { return e.where + ": " + e.text }

// statusOf returns the status of an answer that was a refusal, and 0 for any other error.
func statusOf(err error) int {
	if a, ok := errors.AsType[*answer](err); ok {
		return a.status
	}
	return 0
}

// says tells whether a refusal has a word in it.
func says(err error, word string) bool {
	a, ok := errors.AsType[*answer](err)
	return ok && strings.Contains(strings.ToLower(a.text), word)
}

// definite tells whether to try again at once is of no use.
func definite(err error) bool {
	return errors.Is(err, errdefs.ErrDenied) || errors.Is(err, errdefs.ErrInvalid) || errors.Is(err, errdefs.ErrUnsupported)
}

const quota = "ask the cloud's operator for a larger quota, or remove what is not needed; openstack quota show tells what there is"

// explain makes of an error of gophercloud one of a class, on one line.
func (p *provider) explain(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	where := op + " in " + p.t.Scope
	if again, ok := errors.AsType[*gophercloud.ErrUnableToReauthenticate](err); ok {
		return p.explain(ctx, "Login", again.ErrReauth)
	}
	code, answered := errors.AsType[gophercloud.ErrUnexpectedResponseCode](err)
	if !answered {
		return p.unanswered(ctx, where, err)
	}
	full := &answer{where, reason(code.Body, code.Actual), code.Actual}
	after := retryAfter(code)
	hint := func(class error, text string) error { return errdefs.Hint(errdefs.As(class, full), text) }
	switch code.Actual {
	case http.StatusUnauthorized:
		return hint(errdefs.ErrDenied, p.whyDenied())
	case http.StatusForbidden:
		if isQuota(full.text) {
			return hint(errdefs.ErrInvalid, quota)
		}
		return hint(errdefs.ErrDenied, "the user needs a role such as member in the project")
	case http.StatusRequestEntityTooLarge:
		if after <= 0 || isQuota(full.text) {
			return hint(errdefs.ErrInvalid, quota)
		}
		return block.Throttled(full, after)
	case http.StatusTooManyRequests:
		return block.Throttled(full, after)
	case http.StatusNotFound:
		if op == "Login" && p.auth.opts.TokenID != "" { // which Keystone does not find
			return hint(errdefs.ErrDenied, p.whyDenied())
		}
		if op == "Login" {
			return hint(errdefs.ErrInvalid, "is auth_url that of Keystone, with /v3 at its end?")
		}
		return errdefs.As(errdefs.ErrNotFound, full)
	case http.StatusConflict:
		return errdefs.As(errdefs.ErrInUse, full)
	case http.StatusNotAcceptable:
		return hint(errdefs.ErrUnsupported, "Cinder has to be of OpenStack Pike (2017) or newer")
	case http.StatusServiceUnavailable:
		if after > 0 {
			return block.Throttled(full, after)
		}
	}
	if code.Actual >= http.StatusBadRequest && code.Actual < http.StatusInternalServerError {
		return errdefs.As(errdefs.ErrInvalid, full)
	}
	return errdefs.As(errdefs.ErrUnavailable, full)
}

// isQuota tells whether it is a quota that was exceeded, and not a rate.
func isQuota(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "exceeds") || strings.Contains(text, "exceeded") || strings.Contains(text, "quota")
}

// whyDenied says what may be wrong with what the pool logs in with.
func (p *provider) whyDenied() string {
	o := p.auth.opts
	switch {
	case o.TokenID != "":
		return "the token is wrong or has expired; with a password or an application credential the pool gets new ones by itself"
	case o.ApplicationCredentialID != "" || o.ApplicationCredentialName != "":
		return "the application credential or its secret is wrong, or it has expired"
	}
	return "the user, its domain, its password or the project is wrong; Keystone does not say which"
}

// retryAfter is when the cloud wants to be asked again.
func retryAfter(code gophercloud.ErrUnexpectedResponseCode) time.Duration {
	text := code.ResponseHeader.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// reason is the message of an answer: OpenStack wraps it in the name of the fault, as in
// {"badRequest": {"code": 400, "message": "…"}}.
func reason(body []byte, status int) string {
	var faults map[string]struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &faults) == nil {
		for _, f := range faults {
			if f.Message != "" {
				return errdefs.OneLine(f.Message)
			}
		}
	}
	return "answer " + strconv.Itoa(status) + " " + http.StatusText(status)
}

// unanswered is a request that got no answer, or that could not be made.
func (p *provider) unanswered(ctx context.Context, where string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errdefs.Class(err) != nil {
		return err
	}
	_, noEndpoint := errors.AsType[*gophercloud.ErrEndpointNotFound](err)
	_, noService := errors.AsType[*gophercloud.ErrServiceNotFound](err)
	if noEndpoint || noService {
		err := errdefs.Errorf(errdefs.ErrInvalid, "%s: the catalogue has no %s service of block storage there", where, p.c.Interface)
		return errdefs.Hint(err, "is the region right? openstack catalog show volumev3 lists them")
	}
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		err := errdefs.Errorf(errdefs.ErrUnavailable, "%s: %s", where, errdefs.OneLine(bad.Err.Error()))
		return errdefs.Hint(err, "name the certificate of the authority with ca_file")
	}
	inner := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		inner = u.Err
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "%s: %s", where, errdefs.OneLine(inner.Error()))
}
