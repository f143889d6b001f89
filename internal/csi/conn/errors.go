package conn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Outcome is what is known of the world after an RPC.
type Outcome int

// The outcomes.
const (
	// Done: it was done.
	Done Outcome = iota
	// Final: it was not done, and will not be if it is repeated as it is.
	Final
	// Unknown: it may have been done, or half. The same call repeated finds out.
	Unknown
	// Pending: the driver is at it, or has no room at present. Repeat the same call after a while.
	Pending
	// Gone: what it is about does not exist. For a call that takes something down that is as good as Done, for
	// one that sets it up it is Final.
	Gone
)

func (o Outcome) String() string {
	return [...]string{"done", "final", "unknown", "pending", "gone"}[o]
}

// Error is why an RPC failed. Its text is `DRIVER: RPC: what it means: the driver's own words`, and it has a
// class of [errdefs] and, where a person can do something, a hint.
type Error struct {
	// Driver is the name of the driver, or its socket where the name is not known.
	Driver string
	RPC    string
	// Code is that of the driver, corrected where it is known to give a wrong one.
	Code codes.Code
	// Text is what the driver says, in one line and without secrets.
	Text string
	// Sent is whether the driver can have seen the request.
	Sent bool

	limit time.Duration // ours, and it ran out
	late  bool          // that of the caller ran out
	cause error
	means meaning
}

// Error implements error.
func (e *Error) Error() string {
	parts := []string{e.Driver, e.RPC}
	if e.means.text != "" {
		parts = append(parts, e.means.text)
	}
	if e.cause != nil && !errors.Is(e.cause, context.Canceled) {
		parts = append(parts, e.cause.Error())
	}
	if e.Text != "" {
		parts = append(parts, e.Text)
	}
	return strings.Join(parts, ": ")
}

// Unwrap gives the class, and what kept the request from being sent.
func (e *Error) Unwrap() []error {
	all := []error{}
	if e.cause != nil {
		all = append(all, e.cause)
	}
	if e.means.class != nil && errdefs.Class(e.cause) == nil {
		all = append(all, e.means.class)
	}
	return all
}

// GRPCStatus lets [status.FromError] know the code.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Text) }

// finish gives the error its meaning, and its hint if there is one.
func (e *Error) finish() error {
	e.means = meaningOf(e)
	return hinted(e, e.means.hint)
}

func hinted(err error, hint string) error {
	if hint == "" {
		return err
	}
	return errdefs.Hint(err, hint)
}

// OutcomeOf says what an error of an RPC means for the world. An error that is of no RPC is Unknown: nothing is
// known beyond what was before.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Done
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || !e.Sent || introduces(e.RPC) {
		return Unknown // what was meant to be done was not even asked for
	}
	switch e.Code {
	case codes.Aborted:
		return Pending
	case codes.NotFound:
		return Gone
	case codes.ResourceExhausted:
		if e.RPC == "ControllerPublishVolume" { // another disk may be detached from the host
			return Pending
		}
		return Final
	case codes.InvalidArgument, codes.OutOfRange, codes.AlreadyExists, codes.Unimplemented, codes.Unauthenticated,
		codes.PermissionDenied, codes.FailedPrecondition:
		return Final
	}
	return Unknown
}

// Sent reports whether the driver can have seen the request that failed. What was never sent has had no effect;
// after one that was, a snapshot or a copy of its name is not to be trusted.
func Sent(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Sent && !introduces(e.RPC)
}

// CodeOf returns the code of an RPC's error as it was corrected, OK for nil and Unknown for another error.
func CodeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return codes.Unknown
}

// took says how long something was waited for.
func took(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	return fmt.Sprintf("no answer in %s", d)
}
