// Package schedule makes snapshots of volumes at set times, and removes those that it made
// when there are enough.
//
// Nothing is remembered here between two starts: a snapshot that a schedule made has its name
// as a label, so the youngest of them says when the last run was, and whether one has been
// missed meanwhile.
package schedule

import (
	"context"
	"errors"
	"hash/fnv"
	"path"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Label is that of the snapshots which a schedule made; its value is the schedule's name.
const Label = "remora.schedule"

// Schedule says what is to be done, when, and with which volumes.
type Schedule struct {
	Name string
	Cron Cron
	// Jitter is how much later than at its time a run may begin; for each volume the delay is
	// always the same.
	Jitter time.Duration
	// Pools and Volumes are names, or patterns as for path.Match. An empty list is all where the
	// other one is not empty, and none where both are.
	Pools, Volumes []string
	Keep           Keep
}

// Matches tells whether the schedule is for a volume.
func (s Schedule) Matches(pool, name string) bool {
	return s.inPool(pool) && (len(s.Volumes) == 0 || matches(s.Volumes, name))
}

func (s Schedule) inPool(pool string) bool {
	if len(s.Pools) == 0 {
		return len(s.Volumes) > 0
	}
	return matches(s.Pools, pool)
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// CheckPattern says what is wrong with a pattern of names.
func CheckPattern(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a pattern such as db*", pattern)
	}
	return nil
}

// delay is the jitter of one volume. It is of whole seconds, as a driver may remember no more
// of the time at which a snapshot was made.
func (s Schedule) delay(pool, name string) time.Duration {
	seconds := uint64(s.Jitter / time.Second)
	if seconds == 0 {
		return 0
	}
	h := fnv.New64a()
	for _, word := range []string{s.Name, pool, name} {
		_, _ = h.Write([]byte(word + "\x00")) // never fails
	}
	return time.Duration(h.Sum64()%seconds) * time.Second
}

// slack is how much too early the time of a snapshot may be: file systems have clocks that are
// a little late, or of whole seconds.
const slack = time.Second

// after returns when the next run of a volume is after one that began at last.
func (s Schedule) after(pool, name string, last time.Time) time.Time {
	return s.since(pool, name, last.Add(-s.delay(pool, name)))
}

// since returns when the first run of a volume is whose time, without the delay, comes after
// another one.
func (s Schedule) since(pool, name string, at time.Time) time.Time {
	next := s.Cron.Next(at.Local())
	if next.IsZero() {
		return next
	}
	return next.Add(s.delay(pool, name))
}

// Volume is one that a pool has.
type Volume struct {
	Name      string
	CreatedAt time.Time
}

// ErrClosed is the error of a [Pool] that is closed, or being closed.
var ErrClosed = errors.New("pool is closed")

// Pool is a pool whose driver can make snapshots, or cannot. Its methods are safe for
// concurrent use.
type Pool interface {
	Name() string
	// Able tells whether the driver can make snapshots.
	Able() bool
	// Volumes returns the volumes from memory.
	Volumes() []Volume
	Snapshots(ctx context.Context, name string) ([]volume.Snapshot, error)
	CreateSnapshot(ctx context.Context, name string, labels map[string]string) error
	RemoveSnapshot(ctx context.Context, name, snapshot string) error
}

// runTime bounds one run: what a driver is asked in it, all together.
const runTime = 5 * time.Minute

// Run makes a snapshot of a volume, tells whether it did, and removes those that the schedule
// made and does not keep.
func (s Schedule) Run(ctx context.Context, p Pool, name string, loc *time.Location) (made bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runTime, errdefs.Errorf(context.DeadlineExceeded, "gave up after %s", runTime))
	defer cancel()
	if err := p.CreateSnapshot(ctx, name, map[string]string{Label: s.Name}); err != nil {
		return false, err
	}
	all, err := p.Snapshots(ctx, name)
	if err != nil {
		return true, err
	}
	var errs []error
	for _, x := range s.Keep.Remove(s.own(all), loc) {
		err := p.RemoveSnapshot(ctx, name, x.Name)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) { // somebody was faster
			errs = append(errs, err)
		}
	}
	return true, errors.Join(errs...)
}

// own returns the snapshots that the schedule made.
func (s Schedule) own(all []volume.Snapshot) []Taken {
	var own []Taken
	for _, x := range all {
		if x.Labels[Label] == s.Name {
			own = append(own, Taken{x.Name, x.CreatedAt})
		}
	}
	return own
}

// last returns when the schedule made the youngest of its snapshots; zero where there is none.
func (s Schedule) last(all []volume.Snapshot) time.Time {
	own := s.own(all)
	if len(own) == 0 {
		return time.Time{}
	}
	return slices.MaxFunc(own, func(a, b Taken) int { return a.At.Compare(b.At) }).At
}
