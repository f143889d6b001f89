package gcepd

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/api/compute/v1"
	"google.golang.org/api/googleapi"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// option is what a request of the SDK can be given.
type option = googleapi.CallOption

// meaning is what a reason of Compute Engine means: a class, and what can be done.
type meaning struct {
	class error
	hint  string
}

// The reasons that matter, in the spelling of answers. That of operations is made the same.
const (
	inUse     = "resourceInUseByAnotherResource"
	notReady  = "resourceNotReady"
	notFound  = "notFound"
	exists    = "alreadyExists"
	condition = "conditionNotMet"
)

const (
	quota  = "ask Google for a larger quota (gcloud compute regions describe REGION shows them), or remove what is not needed"
	faulty = "this is a fault of Google's, which is asked again; https://status.cloud.google.com tells of larger ones"
	rights = "give the account the permissions that the driver's page lists"
)

var meanings = map[string]meaning{
	inUse:                                  {errdefs.ErrInUse, ""},
	notReady:                               {errdefs.ErrInUse, ""},
	notFound:                               {errdefs.ErrNotFound, ""},
	exists:                                 {errdefs.ErrExists, ""},
	condition:                              {errdefs.ErrInUse, ""},
	"resourceOperationInProgress":          {errdefs.ErrInUse, ""},
	"quotaExceeded":                        {errdefs.ErrInvalid, quota},
	"limitExceeded":                        {errdefs.ErrInvalid, "see how many disks a machine type may have, or use a larger one"},
	"zoneResourcePoolExhausted":            {errdefs.ErrUnavailable, "the zone has no room at the moment: try again later, or another zone (-o zone=)"},
	"zoneResourcePoolExhaustedWithDetails": {errdefs.ErrUnavailable, "the zone has no room at the moment: try again later, or another zone (-o zone=)"},
	"forbidden":                            {errdefs.ErrDenied, rights},
	"permissionsError":                     {errdefs.ErrDenied, rights},
	"permissionDenied":                     {errdefs.ErrDenied, rights},
	"insufficientPermissions":              {errdefs.ErrDenied, "the instance has to be started with the access scope compute or cloud-platform, or the pool needs a keyfile"},
	"accessNotConfigured":                  {errdefs.ErrDenied, "gcloud services enable compute.googleapis.com"},
	"accountDisabled":                      {errdefs.ErrDenied, "the project needs a billing account that is in order"},
	"authError":                            {errdefs.ErrDenied, "is the key still there (gcloud iam service-accounts keys list), and is this host's clock right?"},
	"backendError":                         {errdefs.ErrUnavailable, faulty},
	"internalError":                        {errdefs.ErrUnavailable, faulty},
	"timeout":                              {errdefs.ErrUnavailable, faulty},
	"resourceNotFound":                     {errdefs.ErrNotFound, ""},
	"unsupportedOperation":                 {errdefs.ErrUnsupported, ""},
}

// throttles are the reasons that say "too many requests".
var throttles = map[string]bool{"rateLimitExceeded": true, "userRateLimitExceeded": true, "operationRateExceeded": true}

// coded is an error with the reason that Compute Engine gave it.
type coded struct{ text, reason string }

func (e *coded) Error() string { return e.text }

// reasonOf returns the reason of Compute Engine, empty if it was none of its errors.
func reasonOf(err error) string {
	if c, ok := errors.AsType[*coded](err); ok {
		return c.reason
	}
	return ""
}

// meaningOf returns what a reason means; of one that nobody has heard of it is in the status.
func meaningOf(reason string, status int, text string) meaning {
	m, ok := meanings[reason]
	switch {
	case strings.Contains(text, "KMS") || strings.Contains(text, "cryptoKey") || strings.Contains(text, "kmsKeyName"):
		return meaning{errdefs.ErrInvalid, "the key has to be there, enabled, in the region of the disk, and the Compute Engine service agent of the project needs cloudkms.cryptoKeyEncrypterDecrypter on it"}
	case strings.Contains(text, "Unknown zone"), reason == "invalid" && strings.Contains(text, "'zone'"):
		return meaning{errdefs.ErrInvalid, "gcloud compute zones list shows the zones that there are"}
	case ok:
		return m
	case strings.HasSuffix(reason, "QuotaExceeded"):
		return meaning{errdefs.ErrInvalid, quota}
	case status >= http.StatusInternalServerError, status == 0:
		return meaning{errdefs.ErrUnavailable, faulty}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return meaning{errdefs.ErrDenied, rights}
	case status == http.StatusNotFound:
		return meaning{class: errdefs.ErrNotFound}
	}
	return meaning{class: errdefs.ErrInvalid}
}

// explain makes of an error of the SDK one of a class, on one line.
func (p *provider) explain(ctx context.Context, op, place string, err error) error {
	if err == nil {
		p.tokens.served()
		return nil
	}
	where := op + " in " + place + " of " + p.t.Scope
	answer, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return p.unanswered(ctx, where, err)
	}
	reason, text := "", answer.Message
	if len(answer.Errors) > 0 {
		reason, text = answer.Errors[0].Reason, answer.Errors[0].Message
	}
	if text == "" { // of a proxy, say
		text = http.StatusText(answer.Code)
	}
	if throttles[reason] || answer.Code == http.StatusTooManyRequests {
		return block.Throttled(told(where, reason, text), retryAfter(answer.Header))
	}
	if answer.Code == http.StatusUnauthorized && p.tokens.renew() {
		return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, told(where, reason, text)), "the token of the instance's account is asked for anew; ask again")
	}
	return skewed(classify(where, reason, answer.Code, text), answer.Header)
}

// skewed tells of a wrong clock where that may be why somebody was refused.
func skewed(err error, h http.Header) error {
	if skew := block.Skew(h); skew != "" && errors.Is(err, errdefs.ErrDenied) {
		return errdefs.Hint(err, skew)
	}
	return err
}

func told(where, reason, text string) *coded {
	if reason != "" {
		where += ": " + reason
	}
	return &coded{where + ": " + errdefs.OneLine(strings.TrimSpace(text)), reason}
}

func classify(where, reason string, status int, text string) error {
	m := meaningOf(reason, status, text)
	err := errdefs.As(m.class, told(where, reason, text))
	if m.hint != "" {
		return errdefs.Hint(err, m.hint)
	}
	return err
}

// retryAfter is what the header of that name says, in seconds (RFC 9110, 10.2.3).
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// failure returns the error with which an operation has ended, nil where it has not, or ended well.
func (p *provider) failure(op *compute.Operation) error {
	if op.Error == nil || len(op.Error.Errors) == 0 {
		return nil
	}
	e := op.Error.Errors[0]
	place := "the project"
	if op.Zone != "" {
		place = "zone " + last(op.Zone)
	}
	return classify(op.OperationType+" in "+place+" of "+p.t.Scope, camel(e.Code), int(op.HttpErrorStatusCode), e.Message)
}

// camel makes RESOURCE_NOT_READY of an operation what an answer calls resourceNotReady.
func camel(code string) string {
	words := strings.Split(strings.ToLower(code), "_")
	for i, w := range words {
		if i > 0 && w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}

// unanswered is a request that got no answer, or never was made for want of a token.
func (p *provider) unanswered(ctx context.Context, where string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errdefs.Class(err) != nil { // our own, of the metadata server
		if u, ok := errors.AsType[*url.Error](err); ok {
			return u.Err
		}
		return err
	}
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return skewed(classify(where, "authError", r.Response.StatusCode, "no token: "+r.ErrorCode+" "+r.ErrorDescription), r.Response.Header)
	}
	if u, ok := errors.AsType[*url.Error](err); ok { // without the URL, which says nothing more
		err = u.Err
	}
	text := errdefs.OneLine(err.Error())
	if strings.Contains(text, "invalid_grant") || strings.Contains(text, "cannot fetch token") && strings.Contains(text, "400") {
		return classify(where, "authError", http.StatusUnauthorized, "no token: Google does not know the key")
	}
	return block.Unanswered(where, "Private Google Access or Cloud NAT", err)
}
