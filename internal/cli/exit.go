package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The exit statuses. New ones may be added; a script takes one that it does not know for
// a failure.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartly      = 3
	exitNotFound    = 10
	exitConflict    = 11
	exitConfig      = 12
	exitDenied      = 13
	exitUnreachable = 14
	exitTimeout     = 15
	exitDeviates    = 20 // of "remora plugin check" alone
	exitBroken      = 21
	exitInterrupted = 130
)

const exitHelp = `Exit status: 0 done, 1 failed, 2 wrong arguments, 3 partly done, 10 not found,
11 in use or exists already, 12 configuration invalid, 13 denied,
14 daemon unreachable, 15 timed out, 130 interrupted.`

// describeExit puts the statuses at the end of the help of cmd and all below it.
func describeExit(cmd *cobra.Command) {
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long += "\n\n" + exitHelp
	for _, sub := range cmd.Commands() {
		describeExit(sub)
	}
}

// configError marks an error of the configuration.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// argsError marks an error of the command line itself.
type argsError struct{ error }

func (e argsError) Unwrap() error { return e.error }

// failure is a failure that has been told already, with its exit status.
type failure struct{ status int }

func (failure) Error() string { return "" }

// report prints err for a person and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	if f, ok := errors.AsType[failure](err); ok {
		return f.status
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		a.sayf("remora: interrupted\n")
		return exitInterrupted
	}
	a.tell(err)
	return status(err)
}

// tell prints an error and its hints.
func (a *app) tell(err error) {
	a.sayf("remora: %s\n", shown(err.Error(), "\n\t"))
	for _, hint := range errdefs.Hints(err) {
		a.sayf("hint: %s\n", shown(hint, "\n\t"))
	}
}

func status(err error) int {
	if _, ok := errors.AsType[argsError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[configError](err); ok {
		return exitConfig
	}
	if errors.Is(err, control.ErrUnreachable) {
		return exitUnreachable
	}
	switch errdefs.Class(err) {
	case errdefs.ErrNotFound: //nolint:errorlint // Class returns the class itself
		return exitNotFound
	case errdefs.ErrExists, errdefs.ErrInUse:
		return exitConflict
	case errdefs.ErrDenied:
		return exitDenied
	case context.DeadlineExceeded:
		return exitTimeout
	}
	return exitFailed
}
