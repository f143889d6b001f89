package schedule

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Engine runs schedules in pools. Its methods are safe for concurrent use, but for Set.
type Engine struct {
	log *slog.Logger
	// ran is told of each run.
	ran func(schedule string, err error)

	mu      sync.Mutex
	runners []*runner // by schedule, and of one schedule in the order of the pools
	all     []Schedule
	done    sync.WaitGroup
}

// NewEngine returns an engine that does nothing before Set. It tells ran of each run.
func NewEngine(log *slog.Logger, ran func(schedule string, err error)) *Engine {
	return &Engine{log: log, ran: ran}
}

// Set has the engine run these schedules in these pools, until ctx ends or it is called again.
// What runs so already is not disturbed.
func (e *Engine) Set(ctx context.Context, all []Schedule, pools []Pool) {
	e.mu.Lock()
	old := e.runners
	e.mu.Unlock()
	var next, fresh []*runner
	for _, s := range all {
		for _, p := range pools {
			if !s.inPool(p.Name()) {
				continue
			}
			i := slices.IndexFunc(old, func(r *runner) bool { return reflect.DeepEqual(r.schedule, s) && r.pool == p })
			if i >= 0 {
				next = append(next, old[i])
				continue
			}
			r := e.runner(s, p)
			next, fresh = append(next, r), append(fresh, r)
		}
	}
	for _, r := range old {
		if !slices.Contains(next, r) {
			r.stop()
		}
	}
	for _, r := range fresh {
		e.start(ctx, r, old)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runners, e.all = next, all
}

func (e *Engine) runner(s Schedule, p Pool) *runner {
	return &runner{
		schedule: s, pool: p, ran: e.ran, states: map[string]*state{}, stop: func() {}, ended: make(chan struct{}),
		log: e.log.With(slog.String("schedule", s.Name), slog.String("pool", p.Name())),
	}
}

// start begins to run a schedule in a pool, when what it takes the place of has ended: that may
// be making a snapshot still. Where the driver cannot make any that is said once, if there is a
// volume for it.
func (e *Engine) start(ctx context.Context, r *runner, old []*runner) {
	if !r.pool.Able() {
		if r.useless(r.volumes()) {
			r.log.WarnContext(ctx, "nothing is scheduled in the pool: its driver cannot make snapshots")
		}
		close(r.ended)
		return
	}
	ctx, r.stop = context.WithCancel(ctx)
	e.done.Go(func() {
		defer close(r.ended)
		for _, o := range old {
			if o.schedule.Name == r.schedule.Name && o.pool.Name() == r.pool.Name() {
				<-o.ended
			}
		}
		r.loop(ctx)
	})
}

// Close stops everything and waits for what is under way, as long as ctx lasts.
func (e *Engine) Close(ctx context.Context) {
	e.Set(ctx, nil, nil)
	idle := make(chan struct{})
	go func() {
		e.done.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// Status is how far a schedule has come.
type Status struct {
	Schedule Schedule
	// Volumes is for how many volumes it is.
	Volumes int
	// Last is the youngest run there was, Next the first to come; zero where there is none.
	Last, Next time.Time
	// Error is what the last run of a volume came to, of one of those where it went wrong.
	Error error
}

// Status returns that of every schedule, in the order of Set.
func (e *Engine) Status() []Status {
	e.mu.Lock()
	runners, schedules := e.runners, e.all
	e.mu.Unlock()
	all := make([]Status, 0, len(schedules))
	for _, s := range schedules {
		sum := Status{Schedule: s}
		for _, r := range runners {
			if r.schedule.Name == s.Name {
				r.add(&sum)
			}
		}
		all = append(all, sum)
	}
	return all
}

// lookEvery is how often the volumes are looked at: for new ones, and as a clock may be set and
// a host may sleep.
const lookEvery = time.Minute

// runner runs one schedule in one pool, one volume after the other.
type runner struct {
	schedule Schedule
	pool     Pool
	log      *slog.Logger
	ran      func(schedule string, err error)
	stop     context.CancelFunc
	ended    chan struct{} // closed when nothing runs any more

	mu     sync.Mutex
	states map[string]*state // by volume
}

// state is what is known of one volume.
type state struct {
	created    time.Time // of which volume of the name it is
	last, next time.Time
	known      bool  // next is
	err        error // of the last attempt
}

// useless tells of a pool whose driver cannot make snapshots whether somebody expects some: its
// volumes that the schedule is for are given.
func (r *runner) useless(mine []Volume) bool { return len(r.schedule.Pools) > 0 || len(mine) > 0 }

func (r *runner) loop(ctx context.Context) {
	for ctx.Err() == nil {
		r.look(ctx)
		wait := time.NewTimer(r.pause(time.Now()))
		select {
		case <-ctx.Done():
		case <-wait.C:
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
		if st.known && !st.next.IsZero() {
			pause = min(pause, st.next.Sub(now))
		}
	}
	return max(pause, 0)
}

// volumes returns the volumes of the pool that the schedule is for.
func (r *runner) volumes() []Volume {
	var mine []Volume
	for _, v := range r.pool.Volumes() {
		if r.schedule.Matches(r.pool.Name(), v.Name) {
			mine = append(mine, v)
		}
	}
	return mine
}

// look does what is due.
func (r *runner) look(ctx context.Context) {
	mine := r.volumes()
	r.forget(mine)
	for _, v := range mine {
		if ctx.Err() != nil {
			return
		}
		st := r.state(v)
		if !st.known {
			r.find(ctx, v, st)
		}
		// The clock of each run: those before it may have taken long.
		if now := time.Now(); st.known && !st.next.IsZero() && !st.next.After(now) {
			r.run(ctx, v, st)
		}
	}
}

// forget forgets volumes that are not there any more.
func (r *runner) forget(mine []Volume) {
	there := map[string]bool{}
	for _, v := range mine {
		there[v.Name] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.states {
		if !there[name] {
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

// find finds out when the next run of a volume is. Without any so far, it is the first after
// the volume was made, which may have been missed.
func (r *runner) find(ctx context.Context, v Volume, st *state) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	all, err := r.pool.Snapshots(ctx, v.Name)
	now := time.Now()
	r.mu.Lock()
	before := st.err
	st.err = err
	if err == nil {
		st.last, st.known = r.schedule.last(all), true
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
	if err != nil && before == nil && !r.ending(ctx, err) { // it is tried again every minute
		r.ran(r.schedule.Name, err)
		r.log.ErrorContext(ctx, "snapshots cannot be listed, and so not be scheduled", what(v, err)...)
	}
}

// run runs the schedule for a volume. Whatever comes of it, the next run is at the next time.
func (r *runner) run(ctx context.Context, v Volume, st *state) {
	start := time.Now()
	made, err := r.schedule.Run(ctx, r.pool, v.Name, start.Location())
	r.mu.Lock()
	if !made && r.ending(ctx, err) {
		st.known = false
		r.mu.Unlock()
		return
	}
	before := st.err
	st.err = err
	if made {
		st.last = start
	}
	st.next = r.schedule.after(r.pool.Name(), v.Name, start)
	r.mu.Unlock()
	r.ran(r.schedule.Name, err)
	// Each run that fails is told; what a driver cannot do is told once.
	if err != nil && !(errors.Is(err, errdefs.ErrUnsupported) && errors.Is(before, errdefs.ErrUnsupported)) {
		r.log.ErrorContext(ctx, "scheduled snapshot failed", what(v, err)...)
	}
}

// ending tells whether an error is no failure: the schedule is told to stop, the pool is closed,
// or the volume was removed.
func (r *runner) ending(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, errdefs.ErrNotFound)
}

// what names a volume and what is wrong with it.
func what(v Volume, err error) []any {
	return []any{slog.String("volume", v.Name), slog.String("error", errdefs.OneLine(err.Error()))}
}

// add adds the runner's part to the status of its schedule.
func (r *runner) add(sum *Status) {
	mine := r.volumes()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.pool.Able() {
		if r.useless(mine) {
			sum.Error = errdefs.Errorf(errdefs.ErrUnsupported, "pool %q: the driver cannot make snapshots", r.pool.Name())
		}
		return
	}
	sum.Volumes += len(mine)
	for _, v := range mine {
		st := r.states[v.Name]
		if st == nil || !st.known {
			next := r.schedule.since(r.pool.Name(), v.Name, now)
			sum.Next = first(sum.Next, next)
		} else {
			sum.Next = first(sum.Next, st.next)
			if st.last.After(sum.Last) {
				sum.Last = st.last
			}
		}
		if st != nil && st.err != nil {
			sum.Error = st.err
		}
	}
}

// first returns the earlier of two times of which each may be unknown.
func first(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
