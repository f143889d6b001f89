package ebs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// meaning is what a code of EC2 means, and what a person can do.
type meaning struct {
	class error
	hint  string
}

// meanings are those of the codes that do not say it by their form, see [meaningOf].
var meanings = map[string]meaning{
	"UnauthorizedOperation":       {errdefs.ErrDenied, allow},
	"AuthFailure":                 {errdefs.ErrDenied, "the credentials are wrong, or not for this region"},
	"InvalidClientTokenId":        {errdefs.ErrDenied, "there is no such access key"},
	"SignatureDoesNotMatch":       {errdefs.ErrDenied, "the secret is not that of the access key, or the clock is wrong"},
	"OptInRequired":               {errdefs.ErrDenied, "the account has to enable the region, or EC2"},
	"Blocked":                     {errdefs.ErrDenied, "AWS has blocked the account"},
	"PendingVerification":         {errdefs.ErrDenied, "AWS has not verified the account yet"},
	"AccessDenied":                {errdefs.ErrDenied, allow},
	"AccessDeniedException":       {errdefs.ErrDenied, allow},
	"UnrecognizedClientException": {errdefs.ErrDenied, "the credentials are wrong"},
	"MissingAuthenticationToken":  {errdefs.ErrDenied, unsigned},
	"IncompleteSignature":         {errdefs.ErrDenied, unsigned},

	"VolumeInUse":                           {errdefs.ErrInUse, ""},
	"IncorrectState":                        {errdefs.ErrInUse, ""},
	"IncorrectInstanceState":                {errdefs.ErrInUse, ""},
	"IncorrectModificationState":            {errdefs.ErrInUse, ""},
	"VolumeModificationRateExceeded":        {errdefs.ErrInUse, ""},
	"InvalidSnapshot.InUse":                 {errdefs.ErrInUse, "an image (AMI) or a volume in the making depends on it"},
	"ConcurrentSnapshotLimitExceeded":       {errdefs.ErrUnavailable, "wait until other snapshots are done"},
	"SnapshotCreationPerVolumeRateExceeded": {errdefs.ErrUnavailable, "EBS takes one snapshot of a volume in 15 seconds"},
	"ConcurrentTagAccess":                   {errdefs.ErrUnavailable, "somebody else changes the tags of the disk at the same time; ask again"},
	"InsufficientVolumeCapacity":            {errdefs.ErrUnavailable, "the zone has no room for disks of this type; take another type or zone, or wait"},

	"VolumeLimitExceeded":                 {errdefs.ErrInvalid, quota},
	"MaxIOPSLimitExceeded":                {errdefs.ErrInvalid, quota},
	"SnapshotLimitExceeded":               {errdefs.ErrInvalid, quota},
	"PendingSnapshotLimitExceeded":        {errdefs.ErrUnavailable, "wait until other snapshots are done"},
	"TagLimitExceeded":                    {errdefs.ErrInvalid, "EBS has room for 50 tags on a disk"},
	"AttachmentLimitExceeded":             {errdefs.ErrInvalid, "the instance has no room for another disk: stop a container that uses one, or take a larger type of instance"},
	"VolumeModificationSizeLimitExceeded": {errdefs.ErrInvalid, quota},
	"InvalidVolume.ZoneMismatch":          {errdefs.ErrInvalid, "run the container on an instance in the zone of the disk"},
	"InvalidZone.NotFound":                {errdefs.ErrInvalid, "aws ec2 describe-availability-zones lists the zones of a region"},
	"UnknownVolumeType":                   {errdefs.ErrInvalid, ""},
	"UnsupportedOperation":                {errdefs.ErrUnsupported, ""},
	"Unsupported":                         {errdefs.ErrUnsupported, ""},
	"UnknownParameter":                    {errdefs.ErrUnsupported, ""},
	"InvalidAction":                       {errdefs.ErrUnsupported, ""},
}

const (
	allow    = "the account's policy has to allow it; the driver's page has one that is enough"
	unsigned = "something between this host and EC2 changes the request: is endpoint right, and is there a proxy (HTTPS_PROXY)?"
	faulty   = "this is a fault of EC2, which is asked again; https://health.aws.amazon.com/health/status tells of larger ones"
	way      = "a NAT gateway, or a VPC endpoint for EC2"
)

const quota = "ask AWS for a larger quota (Service Quotas, Amazon EBS), or remove what is not needed"

// throttles are the codes that say "too many requests".
var throttles = map[string]bool{
	"RequestLimitExceeded": true, "Throttling": true, "ThrottlingException": true, "ThrottledException": true,
	"RequestThrottled": true, "RequestThrottledException": true, "TooManyRequestsException": true, "BandwidthLimitExceeded": true,
}

// expired are the codes that credentials get which are out of date.
var expired = map[string]bool{"RequestExpired": true, "ExpiredToken": true, "ExpiredTokenException": true}

// meaningOf returns what a code means; of one that nobody has heard of it is in the status.
func meaningOf(code string, status int) meaning {
	m, ok := meanings[code]
	switch {
	case ok:
		return m
	case strings.HasSuffix(code, ".NotFound"), strings.HasSuffix(code, "NotFound"):
		return meaning{class: errdefs.ErrNotFound}
	case strings.Contains(strings.ToLower(code), "kms"):
		return meaning{errdefs.ErrInvalid, "the key of KMS has to be there, enabled, in this region, and the account's to use"}
	case strings.HasSuffix(code, "LimitExceeded"):
		return meaning{errdefs.ErrInvalid, quota}
	case status >= http.StatusInternalServerError, status == 0:
		return meaning{errdefs.ErrUnavailable, faulty}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return meaning{errdefs.ErrDenied, allow}
	}
	return meaning{class: errdefs.ErrInvalid}
}

// explain makes of an error of the SDK one of a class, on one line.
func (p *provider) explain(ctx context.Context, action string, err error) error {
	if err == nil {
		return nil
	}
	where := action + " in " + p.t.Scope
	resp, _ := errors.AsType[*smithyhttp.ResponseError](err)
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() == "UnknownError" { // which is the SDK's word for what it cannot read
		return unanswered(ctx, where, resp, err)
	}
	code, status, after, skew := api.ErrorCode(), 0, time.Duration(0), ""
	if resp != nil && resp.Response != nil {
		status, skew = resp.HTTPStatusCode(), block.Skew(resp.Response.Header)
		if n, err := strconv.Atoi(resp.Response.Header.Get("Retry-After")); err == nil {
			after = time.Duration(n) * time.Second
		}
	}
	text, _, _ := strings.Cut(api.ErrorMessage(), "Encoded authorization failure message")
	full := &coded{where + ": " + code + ": " + errdefs.OneLine(strings.TrimSpace(text)), code}
	switch {
	case throttles[code], status == http.StatusTooManyRequests:
		return block.Throttled(full, after)
	case expired[code]:
		return p.renew(full, skew)
	}
	if cache, ok := p.creds.(*aws.CredentialsCache); ok && code == "AuthFailure" { // others may have been given meanwhile
		cache.Invalidate()
	}
	m := meaningOf(code, status)
	if errors.Is(m.class, errdefs.ErrDenied) && skew != "" {
		m.hint = skew
	}
	if m.hint == "" {
		return errdefs.As(m.class, full)
	}
	return errdefs.Hint(errdefs.As(m.class, full), m.hint)
}

// coded is an error with the code that EC2 gave it.
type coded struct{ text, code string }

func (e *coded) Error() string { return e.text }

// codeOf returns the code of EC2, empty if it was none of its errors.
func codeOf(err error) string {
	if c, ok := errors.AsType[*coded](err); ok {
		return c.code
	}
	return ""
}

// unanswered is a request that got no answer, or none of EC2.
func unanswered(ctx context.Context, where string, resp *smithyhttp.ResponseError, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cut, ok := errors.AsType[*cutError](err); ok {
		return block.Unanswered(where, way, cut)
	}
	if resp != nil && resp.Response != nil && resp.HTTPStatusCode() != 0 {
		return block.Stranger(fmt.Errorf("%s: an answer %d that is not of EC2", where, resp.HTTPStatusCode()))
	}
	return block.Unanswered(where, way, err)
}

// renew forgets credentials that are out of date, if there can be others.
func (p *provider) renew(err error, skew string) error {
	clock := cmp.Or(skew, "compare the clock of this host with the right time")
	cache, ok := p.creds.(*aws.CredentialsCache)
	if !ok || p.c.AccessKey != "" {
		return errdefs.Hint(errdefs.As(errdefs.ErrDenied, err), "the session of the access key has ended; or "+clock)
	}
	cache.Invalidate()
	return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), clock)
}

// noCredentials says why there are none.
func (p *provider) noCredentials(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	const ways = "give the instance a role, or the pool a credentials_file, a profile, or access_key and secret_key"
	resp, answered := errors.AsType[*smithyhttp.ResponseError](err)
	if answered && resp.HTTPStatusCode() < http.StatusInternalServerError {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "there are no credentials, and the instance has no role"), ways)
	}
	// What lies below may show what it was given, as a command or a file.
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "there are no credentials, and the metadata service of the instance does not answer"), ways)
}
