// Package errdefs holds the classes of error that cross every border of
// Remora: driver to handler, handler to wire, control API to command line.
//
// The list is closed. A program acts on the class, tested with [errors.Is];
// a person reads the text and, where one was attached, the hint. An error of no
// class is internal: something the caller can neither cause nor mend.
package errdefs

import (
	"context"
	"errors"
	"fmt"
)

// The classes. Wrap one with %w, or give it to an error of your own text with
// [Errorf] or [As].
var (
	// ErrNotFound: the object does not exist, and the one who says so is sure of it.
	// Something merely out of reach is [ErrUnavailable].
	ErrNotFound = errors.New("not found")
	// ErrExists: the object is there already, as something other than what was asked.
	ErrExists = errors.New("already exists")
	// ErrInUse: the object is held by somebody, who must let go first.
	ErrInUse = errors.New("in use")
	// ErrInvalid: the request is wrong and stays wrong however often it is sent.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: the driver cannot do this at all.
	ErrUnsupported = errors.New("not supported")
	// ErrUnavailable: what the call needs is out of reach; a later try may do better.
	ErrUnavailable = errors.New("unavailable")
	// ErrDenied: the caller, or this process, lacks the right.
	ErrDenied = errors.New("denied")
)

// classes pairs each class with the word that stands for it on a wire.
var classes = []struct {
	class error
	name  string
}{
	{ErrNotFound, "not-found"},
	{ErrExists, "exists"},
	{ErrInUse, "in-use"},
	{ErrInvalid, "invalid"},
	{ErrUnsupported, "unsupported"},
	{ErrUnavailable, "unavailable"},
	{ErrDenied, "denied"},
	{context.DeadlineExceeded, "timeout"},
	{context.Canceled, "canceled"},
}

// classed is an error with a text of its own and a class beside it.
type classed struct {
	error
	class error
}

func (e *classed) Unwrap() []error { return []error{e.error, e.class} }

// Errorf formats like [fmt.Errorf] and gives the result a class that does not
// show in its text.
func Errorf(class error, format string, args ...any) error {
	return &classed{fmt.Errorf(format, args...), class}
}

// As gives err a class that does not show in its text. As(class, nil) is nil.
func As(class, err error) error {
	if err == nil {
		return nil
	}
	return &classed{err, class}
}

// Class returns the class of err, a context error included, or nil for an
// internal error and for a nil one.
func Class(err error) error {
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return c.class
		}
	}
	return nil
}

// Name returns the word that stands for the class of err on a wire: "not-found",
// "timeout" and so on, "internal" for an error of no class, "" for nil.
func Name(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return c.name
		}
	}
	return "internal"
}

// Named gives err the class whose word is name, and returns err as it is when
// name is no word of a class. It undoes [Name] on the other side of a wire.
func Named(name string, err error) error {
	for _, c := range classes {
		if c.name == name {
			return As(c.class, err)
		}
	}
	return err
}
