package csi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pace is how calls are made again. Tests have their own.
type pace struct {
	first, last time.Duration // between two tries
	// unsure is how often a call is made again whose driver answers that something went wrong inside: it may be
	// the next try that helps, and mostly is none.
	unsure int
	// away is how long a driver is waited for that does not answer at all: it may be on its way up.
	away time.Duration
}

var normal = pace{first: 250 * time.Millisecond, last: 5 * time.Second, unsure: 3, away: time.Minute}

// doubtful is an error after which nobody knows whether there is a whole snapshot, or copy, of the name.
type doubtful struct{ error }

func (e doubtful) Unwrap() error { return e.error }

// rpc makes a call until it gets an answer that another try would not better, and tells the job what it tries to
// get over. copies says that the call makes a copy: one that was lost on the way is not made again, see [doubtful].
func (d *driver) rpc(ctx context.Context, r *jobs.Run, copies bool, f func(ctx context.Context) error) error {
	wait, unsure := d.pace.first, 0
	began := time.Now()
	for {
		err := f(ctx)
		if _, ok := errors.AsType[*conn.Error](err); err != nil && !ok {
			return err // no call was made
		}
		outcome := conn.OutcomeOf(err)
		code := conn.CodeOf(err)
		switch {
		case outcome == conn.Done, outcome == conn.Final, outcome == conn.Gone:
			r.Trouble(nil)
			return err
		case outcome == conn.Pending && code == codes.ResourceExhausted && time.Since(began) > d.c.Wait:
			return err
		case outcome == conn.Pending:
		case copies && conn.Sent(err):
			return doubtful{err}
		case lost(code) || !conn.Sent(err):
			if time.Since(began) > d.patience(err) || errors.Is(err, errdefs.ErrInvalid) || errors.Is(err, errdefs.ErrDenied) {
				return err
			}
		default:
			if unsure++; unsure > d.pace.unsure {
				return err
			}
		}
		r.Trouble(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%w (%w)", context.Cause(ctx), err))
		}
		wait = min(2*wait, d.pace.last)
	}
}

// lost tells of a code that it is of no answer.
func lost(code codes.Code) bool {
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// answered tells that an error is the CSI driver's own, which said that a call failed and is not at it any more.
func answered(err error) bool {
	return conn.Sent(err) && !lost(conn.CodeOf(err)) && conn.OutcomeOf(err) != conn.Pending
}

// elsewhere is how long a driver that somebody else starts is waited for where nobody listens.
const elsewhere = 15 * time.Second

// patience is how long to wait for a driver that does not answer: one that we start is on its way.
func (d *driver) patience(err error) time.Duration {
	if !conn.Sent(err) && d.c.Kind() == launch.External {
		return min(elsewhere, d.pace.away)
	}
	return d.pace.away
}

// down is rpc for a call that takes something down: what is not there any more is down.
func (d *driver) down(ctx context.Context, r *jobs.Run, f func(ctx context.Context) error) error {
	err := d.rpc(ctx, r, false, f)
	if conn.OutcomeOf(err) == conn.Gone {
		return nil
	}
	return err
}

// settled tells that an error says for sure that its call had no effect.
func settled(err error) bool {
	o := conn.OutcomeOf(err)
	return o == conn.Final || o == conn.Gone
}

// limit is how many calls of a kind may be in flight.
type limit chan struct{}

func (l limit) take(ctx context.Context) (free func(), err error) {
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, errdefs.Errorf(errdefs.ErrUnavailable, "too much else is being done: %w", context.Cause(ctx))
	}
}

// The limits of a driver: the sidecars that CSI drivers are tested with have about as many workers.
const (
	maxAttaching = 4
	maxMaking    = 8
)

// making and attaching wait for room among the calls of their kind.
func (d *driver) making(ctx context.Context, facts conn.Facts) (func(), error) {
	return d.room(ctx, facts, d.makes)
}

func (d *driver) attaching(ctx context.Context, facts conn.Facts) (func(), error) {
	return d.room(ctx, facts, d.attaches)
}

func (d *driver) room(ctx context.Context, facts conn.Facts, l limit) (func(), error) {
	if facts.Quirks.Has(quirk.OneAtATime) {
		l = d.single
	}
	return l.take(ctx)
}

// facts are what the CSI driver says of itself; they are asked for until it answers.
func (d *driver) facts(ctx context.Context, r *jobs.Run) (facts conn.Facts, err error) {
	err = d.rpc(ctx, r, false, func(ctx context.Context) (err error) {
		facts, err = d.conn.Facts(ctx)
		return err
	})
	return facts, d.why(err)
}

// why says of a CSI driver that does not answer what is known of its process, where the daemon has started it.
func (d *driver) why(err error) error {
	if err == nil || d.c.Kind() == launch.External || conn.Sent(err) {
		return err
	}
	s := d.run.State()
	switch {
	case s.Error != "":
		return errdefs.Errorf(errdefs.ErrUnavailable, "the CSI driver does not run: %s", s.Error)
	case s.Status != launch.Running:
		return errdefs.Errorf(errdefs.ErrUnavailable, "the CSI driver does not run yet: it is %s", s.Status)
	}
	return err
}

// factsNow is facts for a call without a job.
func (d *driver) factsNow(ctx context.Context) (conn.Facts, error) {
	if f, ok := d.conn.Last(); ok {
		return f, nil
	}
	return d.conn.Facts(ctx)
}

// errNoVolume says that there is no such volume, and is sure of it.
var errNoVolume = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

// isDoubtful tells whether an error leaves a copy in doubt.
func isDoubtful(err error) bool {
	_, ok := errors.AsType[doubtful](err)
	return ok
}
