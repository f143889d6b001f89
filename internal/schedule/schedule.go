// Package schedule makes snapshots and backups of volumes at set times, and removes those that
// it made when there are enough.
//
// Nothing is remembered here between two starts: what a schedule made has its name as a label,
// so the youngest of them says when the last run was, and whether one has been missed
// meanwhile.
package schedule

import (
	"context"
	"errors"
	"hash/fnv"
	"path"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Label is that of the snapshots and backups which a schedule made; its value is the schedule's
// name.
const Label = "remora.schedule"

// Schedule says what is to be done, when, and with which volumes.
type Schedule struct {
	Name string
	Cron Cron
	// Jitter is how much later than at its time a run may begin; for each volume the delay is
	// always the same.
	Jitter time.Duration
	// Pools and Volumes are names, or patterns as for path.Match. An empty list is all where the
	// other one is not empty, and none where both are. Volumes that ask for the schedule by its
	// name come beside them.
	Pools, Volumes []string
	// Keep is for what each of the tasks made, by itself.
	Keep Keep
	// Tasks are what is done; none is a snapshot.
	Tasks []Task
}

// Task is one of the things that a schedule does.
type Task struct {
	// Repository is where a backup of the volume is made; empty makes a snapshot.
	Repository string
}

// String names the task for people.
func (t Task) String() string {
	if t.Repository == "" {
		return "snapshot"
	}
	return "backup to " + t.Repository
}

// Does returns the tasks.
func (s Schedule) Does() []Task {
	if len(s.Tasks) == 0 {
		return []Task{{}}
	}
	return s.Tasks
}

// Can tells whether there is anything that the schedule does with the volumes of a pool, whose driver
// may be able to make snapshots.
func (s Schedule) Can(snapshots bool) bool {
	return snapshots || slices.ContainsFunc(s.Does(), func(t Task) bool { return t.Repository != "" })
}

// Matches tells whether the schedule is for a volume by its name.
func (s Schedule) Matches(pool, name string) bool {
	return s.inPool(pool) && (len(s.Volumes) == 0 || matches(s.Volumes, name))
}

// isFor tells whether the schedule is for a volume.
func (s Schedule) isFor(pool string, v Volume) bool {
	return slices.Contains(v.Schedules, s.Name) || s.Matches(pool, v.Name)
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
	// Schedules are the names of those that the volume itself asks for.
	Schedules []string
}

// ErrClosed is the error of a [Pool] that is closed, or being closed.
var ErrClosed = errors.New("pool is closed")

// ErrBusy is the error of a [Pool] that leaves a volume alone, because something is done with it
// that must not be disturbed. It is no failure: the run is put off.
var ErrBusy = errors.New("volume is busy")

// Pool is a pool whose driver can make snapshots, or cannot. Its methods are safe for
// concurrent use.
type Pool interface {
	Name() string
	// Able tells whether the driver can make snapshots.
	Able() bool
	// Volumes returns the volumes from memory.
	Volumes() []Volume
	// Taken returns what a task of the schedule has made of a volume, and is still there.
	Taken(ctx context.Context, t Task, schedule, name string) ([]Taken, error)
	// Take does a task for a volume. It may have been done although there is an error beside it.
	Take(ctx context.Context, t Task, schedule, name string) (done bool, err error)
	// Remove removes what a task made of a volume. What is gone already is no error.
	Remove(ctx context.Context, t Task, name string, gone []Taken) error
}

// What a task may take for one volume. A snapshot is what a driver is asked for, all together,
// and the hooks around it; a first backup may send a whole disk over a thin line.
const (
	snapshotTime = 30 * time.Minute
	backupTime   = 24 * time.Hour
)

// limit bounds a task for one volume.
func (t Task) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := snapshotTime
	if t.Repository != "" {
		limit = backupTime
	}
	return context.WithTimeoutCause(ctx, limit, errdefs.Errorf(context.DeadlineExceeded, "gave up after %s", limit))
}

// Run does a task for a volume, tells whether it is done, and removes what the schedule made so
// and does not keep.
func (s Schedule) Run(ctx context.Context, p Pool, t Task, name string, clock func() time.Time) (done bool, err error) {
	ctx, cancel := t.limit(ctx)
	defer cancel()
	done, err = p.Take(ctx, t, s.Name, name)
	if !done || s.Keep == (Keep{}) {
		return done, err
	}
	all, listErr := p.Taken(ctx, t, s.Name, name)
	if gone := s.Keep.Remove(all, clock()); listErr == nil && len(gone) > 0 {
		listErr = p.Remove(ctx, t, name, gone)
	}
	return true, errors.Join(err, listErr)
}

// youngest returns when the youngest was made; zero where there is none.
func youngest(all []Taken) time.Time {
	if len(all) == 0 {
		return time.Time{}
	}
	return slices.MaxFunc(all, func(a, b Taken) int { return a.At.Compare(b.At) }).At
}
