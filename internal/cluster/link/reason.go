package link

import (
	"errors"
	"fmt"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Reason says why there is no link, or no more, as this host sees it. The numbers are those of the protocol.
type Reason byte

const (
	WrongPassword Reason = 1 + iota
	TooManyWrong         // wrong passwords lately; Wait says how long
	OtherCluster
	OldProtocol   // that of the other host
	NewProtocol   // that of the other host
	RemovedHere   // this host was removed, says the other
	RemovedThere  // the other host was removed
	Itself        // the address is one of this host's own
	Cloned        // two hosts have one key
	NoPassword    // the other host has none
	NeedsPassword // the other host has one
	OtherHost     // another one than was wanted has the address
	NotRemora     // it is something else
	Busy          // too many links or streams
	NoRoute       // the host that was to relay has no link itself
	Duplicate     // there is a better link
	Replaced      // the program was started anew
	Leaving       // it stops
	Idle          // nobody had use for it
	Broken        // what came was none of the protocol
	Silent        // nothing came for Verdict
	Cut           // the connection broke
)

// mirrored are the reasons that the other side names the other way round.
var mirrored = map[Reason]Reason{
	OldProtocol: NewProtocol, NewProtocol: OldProtocol, RemovedHere: RemovedThere, RemovedThere: RemovedHere,
	NoPassword: NeedsPassword, NeedsPassword: NoPassword,
}

func (r Reason) mirror() Reason {
	if m, ok := mirrored[r]; ok {
		return m
	}
	return r
}

// RefusedError says that a host refuses a link, this one or the other. Errors of Dial are of this type
// where something answered.
type RefusedError struct {
	Reason     Reason
	Address    string      // as it was dialled, or whence it came
	Host       record.Host // zero if not known
	Own, Other Summary
	oldest     uint16 // protocols of the other host
	newest     uint16
	Wait       time.Duration
	Cause      error // of NotRemora, Broken and Cut
}

func (e *RefusedError) Error() string { return e.Address + ": " + e.text() }

func (e *RefusedError) text() string {
	switch e.Reason {
	case WrongPassword:
		return "the two hosts do not have the same password"
	case TooManyWrong:
		return fmt.Sprintf("too many wrong passwords: it may be tried again in %v", max(e.Wait.Round(time.Second), time.Second))
	case OtherCluster:
		return fmt.Sprintf("host %s is in another cluster: %v; this host is in %v", e.Host.Short(), e.Other, e.Own)
	case OldProtocol:
		return fmt.Sprintf("the program there is too old: it speaks the protocol up to version %d, this host from %d on", e.newest, minProtocol)
	case NewProtocol:
		return fmt.Sprintf("the program there is too new: it speaks the protocol from version %d on, this host up to %d", e.oldest, Protocol)
	case RemovedHere:
		return "this host was removed from the cluster"
	case RemovedThere:
		return fmt.Sprintf("host %s was removed from the cluster", e.Host.Short())
	case Itself:
		return "this is an address of this host itself"
	case Cloned:
		return fmt.Sprintf("two hosts have the key of %s: one was copied with its state", e.Host.Short())
	case NoPassword:
		return "the host there has no password, this one has"
	case NeedsPassword:
		return "the host there has a password, this one has none"
	case OtherHost:
		return fmt.Sprintf("host %s answers there, not the one that was wanted", e.Host.Short())
	case NotRemora:
		return "what answers is not remora: " + errdefs.OneLine(e.Cause.Error())
	case Busy:
		return "the host there has too many links"
	}
	return e.Reason.String()
}

// Unwrap returns the class and the cause.
func (e *RefusedError) Unwrap() []error {
	class := errdefs.ErrUnavailable
	switch e.Reason {
	case WrongPassword, TooManyWrong, OtherCluster, RemovedHere, RemovedThere, Cloned, NoPassword, NeedsPassword:
		class = errdefs.ErrDenied
	case OldProtocol, NewProtocol:
		class = errdefs.ErrUnsupported
	case Itself, NotRemora:
		class = errdefs.ErrInvalid
	}
	if e.Cause == nil {
		return []error{class}
	}
	return []error{class, e.Cause}
}

var hints = map[Reason]string{
	WrongPassword: "launch this host with the password of the others",
	OtherCluster:  "a host is in one cluster: reset one of the two, then let it join the other",
	OldProtocol:   "update the program on the host there",
	NewProtocol:   "update the program on this host",
	RemovedHere:   "reset this host, with --force since nobody hears it any more, then let it join again",
	Cloned:        "reset one of the two, so that it has a key of its own",
	NoPassword:    "launch both hosts with the same password, or both without one",
	NeedsPassword: "launch both hosts with the same password, or both without one",
}

func (e *RefusedError) hinted() error {
	if h := hints[e.Reason]; h != "" {
		return errdefs.Hint(e, h)
	}
	return e
}

// reasonOf returns the reason that err has, or Cut.
func reasonOf(err error) Reason {
	if r, ok := errors.AsType[*RefusedError](err); ok {
		return r.Reason
	}
	return Cut
}

// String says it of a link that is closed.
func (r Reason) String() string {
	switch r {
	case NoRoute:
		return "the host between has no link to it"
	case Duplicate:
		return "there is a better link"
	case Replaced:
		return "the program was started anew"
	case Leaving:
		return "the program stops"
	case Idle:
		return "nobody had use for it"
	case Broken:
		return "what came was not of the protocol"
	case Silent:
		return "no answer came in time"
	case Cut:
		return "the connection broke"
	case RemovedHere, RemovedThere:
		return "a host was removed"
	case Cloned:
		return "two hosts have one key"
	case Busy:
		return "too many at once"
	}
	return fmt.Sprintf("reason %d", byte(r))
}
