package schedule

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// lookEvery is how often the volumes are looked at: for new ones, and as a clock may be set and
// a host may sleep. It is also after what time a volume that was busy is tried again.
const lookEvery = time.Minute

// again returns how long after a run that failed, one of so many in a row, the next attempt is.
// What nobody but a person can mend has none before its time.
func again(failed int, err error) (time.Duration, bool) {
	for _, class := range []error{errdefs.ErrUnsupported, errdefs.ErrInvalid, errdefs.ErrDenied} {
		if errors.Is(err, class) {
			return 0, false
		}
	}
	waits := [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}
	return waits[min(failed, len(waits))-1], true
}

// runner runs one task of one schedule in one pool: snapshots one volume after the other,
// backups as many at a time as there are slots for.
type runner struct {
	schedule Schedule
	pool     Pool
	task     Task
	log      *slog.Logger
	ran      func(schedule string, err error)
	slots    chan struct{}
	clock    func() time.Time
	stop     context.CancelFunc
	ended    chan struct{} // closed when nothing runs any more
	woken    chan struct{} // full when a backup has ended
	backups  sync.WaitGroup

	mu     sync.Mutex
	states map[string]*state // by volume
	looked time.Time         // what time it was at the last look
}

// state is what is known of one volume.
type state struct {
	created time.Time // of which volume of the name it is
	last    time.Time
	next    time.Time // when it is due
	hold    time.Time // not before, while it is due
	known   bool      // next is
	running bool
	failed  int   // attempts in a row
	err     error // of the last attempt
}

// at returns when there is something to do; zero is never.
func (st *state) at() time.Time {
	if !st.next.IsZero() && st.hold.After(st.next) {
		return st.hold
	}
	return st.next
}

// able tells whether the pool can do the task.
func (r *runner) able() bool { return r.task.Repository != "" || r.pool.Able() }

// useless tells of a pool whose driver cannot make snapshots whether somebody expects some: its
// volumes that the schedule is for are given.
func (r *runner) useless(mine []Volume) bool {
	return len(r.schedule.Pools) > 0 && r.schedule.inPool(r.pool.Name()) || len(mine) > 0
}

func (r *runner) loop(ctx context.Context) {
	defer r.backups.Wait()
	for ctx.Err() == nil {
		r.look(ctx)
		wait := time.NewTimer(r.pause(r.clock()))
		select {
		case <-ctx.Done():
		case <-wait.C:
		case <-r.woken:
		}
		wait.Stop()
	}
}

// pause returns how long there is nothing to do.
func (r *runner) pause(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause := lookEvery
	for _, st := range r.states {
		if st.known && !st.running && !st.next.IsZero() {
			pause = min(pause, st.at().Sub(now))
		}
	}
	return max(pause, 0)
}

// volumes returns the volumes of the pool that the schedule is for.
func (r *runner) volumes() []Volume {
	var mine []Volume
	for _, v := range r.pool.Volumes() {
		if r.schedule.isFor(r.pool.Name(), v) {
			mine = append(mine, v)
		}
	}
	return mine
}

// look does what is due.
func (r *runner) look(ctx context.Context) {
	mine := r.volumes()
	r.forget(mine)
	r.heedClock()
	for _, v := range mine {
		if ctx.Err() != nil {
			return
		}
		st := r.state(v)
		if !r.isKnown(st) {
			r.find(ctx, v, st)
		}
		if !r.begin(st) {
			continue
		}
		if r.task.Repository == "" {
			r.run(ctx, v, st)
			continue
		}
		r.backups.Go(func() { r.inSlot(ctx, v, st) })
	}
}

// heedClock finds out anew what is due when the clock was set back: else nothing was due before it
// comes to where it was, which may take years.
func (r *runner) heedClock() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock().Round(0) // what the clock shows, and not what has passed
	if now.Add(lookEvery).Before(r.looked) {
		for _, st := range r.states {
			st.known, st.hold = false, time.Time{}
		}
	}
	r.looked = now
}

func (r *runner) isKnown(st *state) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return st.known
}

// begin tells whether a volume is due, by the clock of this moment as those before it may have
// taken long, and marks it as one that is taken care of.
func (r *runner) begin(st *state) bool {
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !st.known || st.running || st.next.IsZero() || st.at().After(now) {
		return false
	}
	st.running = true
	return true
}

// inSlot runs a backup when there are few enough.
func (r *runner) inSlot(ctx context.Context, v Volume, st *state) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
	}
	r.run(ctx, v, st)
	select {
	case r.woken <- struct{}{}:
	default: // is awake
	}
}

// forget forgets volumes that are not there any more, or do not ask for the schedule. One of which something is being made is kept
// until that has ended: where it comes back meanwhile, nothing is made beside.
func (r *runner) forget(mine []Volume) {
	there := map[string]bool{}
	for _, v := range mine {
		there[v.Name] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, st := range r.states {
		if !there[name] && !st.running {
			delete(r.states, name)
		}
	}
}

func (r *runner) state(v Volume) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.states[v.Name]
	if st == nil || !st.created.Equal(v.CreatedAt) {
		st = &state{created: v.CreatedAt}
		r.states[v.Name] = st
	}
	return st
}

// findTime bounds how long it may take to find out when the last run was.
const findTime = 5 * time.Minute

// find finds out when the next run of a volume is. Without any so far, it is the first after
// the volume was made, which may have been missed.
func (r *runner) find(ctx context.Context, v Volume, st *state) {
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	all, err := r.pool.Taken(ctx, r.task, r.schedule.Name, v.Name)
	now := r.clock()
	r.mu.Lock()
	before := st.err
	st.err = err
	if err == nil {
		st.last, st.known = youngest(all), true
		switch {
		case st.last.After(now): // the clock was set back
			st.next = r.schedule.after(r.pool.Name(), v.Name, now)
		case !st.last.IsZero():
			st.next = r.schedule.after(r.pool.Name(), v.Name, st.last.Add(slack))
		case v.CreatedAt.IsZero() || v.CreatedAt.After(now):
			st.next = r.schedule.since(r.pool.Name(), v.Name, now)
		default:
			st.next = r.schedule.since(r.pool.Name(), v.Name, v.CreatedAt)
		}
	}
	r.mu.Unlock()
	if err != nil && before == nil && !r.ending(ctx, v, err) { // it is tried again every minute
		r.ran(r.schedule.Name, err)
		r.log.ErrorContext(ctx, "what was made cannot be listed, and so nothing be scheduled", what(v, err)...)
	}
}

// run runs the task for a volume.
func (r *runner) run(ctx context.Context, v Volume, st *state) {
	start := r.clock()
	done, err := false, context.Cause(ctx)
	if err == nil {
		done, err = r.schedule.Run(ctx, r.pool, r.task, v.Name, r.clock)
	}
	before, told := r.settle(ctx, v, st, start, done, err)
	if !told {
		return
	}
	r.ran(r.schedule.Name, err)
	// Each run that fails is told; what a driver cannot do is told once.
	if err != nil && !(errors.Is(err, errdefs.ErrUnsupported) && errors.Is(before, errdefs.ErrUnsupported)) {
		r.log.ErrorContext(ctx, "scheduled run failed", what(v, err)...)
	}
}

// settle takes what a run came to, and says when the next one is. It returns what the one before
// came to, and whether anybody is to be told of this one.
func (r *runner) settle(ctx context.Context, v Volume, st *state, start time.Time, done bool, err error) (before error, told bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.running = false
	if !done && r.ending(ctx, v, err) {
		st.known = false
		return nil, false
	}
	before, st.err = st.err, err
	if !done && errors.Is(err, ErrBusy) {
		st.hold = r.clock().Add(lookEvery)
		if before == nil || before.Error() != err.Error() {
			r.log.InfoContext(ctx, "volume is left alone", what(v, err)...)
		}
		return nil, false
	}
	st.hold = time.Time{}
	if now := r.clock(); start.Round(0).After(now.Round(0)) {
		start = now // the clock was set back meanwhile
	}
	st.next = r.schedule.after(r.pool.Name(), v.Name, start)
	if done {
		st.last, st.failed = start, 0
		return before, true
	}
	st.failed++
	if wait, ok := again(st.failed, err); ok {
		st.next = first(st.next, r.clock().Add(wait))
	}
	return before, true
}

// ending tells whether an error is no failure: the schedule is told to stop, the pool is closed,
// or the volume was removed.
func (r *runner) ending(ctx context.Context, v Volume, err error) bool {
	return err != nil && ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, errdefs.ErrNotFound) && r.gone(v)
}

// gone tells of a volume with which something was not found whether it is the volume itself. A
// repository may not be there either, and that is a failure.
func (r *runner) gone(v Volume) bool {
	return r.task.Repository == "" || !slices.ContainsFunc(r.pool.Volumes(), func(x Volume) bool { return x.Name == v.Name })
}

// what names a volume and what is wrong with it.
func what(v Volume, err error) []any {
	return []any{slog.String("volume", v.Name), slog.String("error", errdefs.OneLine(err.Error()))}
}

// add adds the runner's part to the status of its schedule.
func (r *runner) add(sum *Status) {
	mine := r.volumes()
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.able() {
		if r.useless(mine) {
			sum.Error = errdefs.Errorf(errdefs.ErrUnsupported, "pool %q: the driver cannot make snapshots", r.pool.Name())
		}
		return
	}
	for _, v := range mine {
		run := Run{Pool: r.pool.Name(), Volume: v.Name, Task: r.task}
		st := r.states[v.Name]
		if st == nil || !st.known {
			run.Next = r.schedule.since(r.pool.Name(), v.Name, now)
		} else {
			run.Last, run.Next, run.Running = st.last, st.at(), st.running
		}
		if st != nil {
			run.Error = st.err
		}
		sum.take(run)
	}
}

// take adds a run.
func (s *Status) take(r Run) {
	s.Runs = append(s.Runs, r)
	s.Next = first(s.Next, r.Next)
	if r.Last.After(s.Last) {
		s.Last = r.Last
	}
	if r.Error != nil {
		s.Error = r.Error
	}
}

// first returns the earlier of two times of which each may be unknown.
func first(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
