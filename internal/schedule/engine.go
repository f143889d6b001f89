package schedule

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Engine runs schedules in pools. Its methods are safe for concurrent use, but for Set.
type Engine struct {
	log *slog.Logger
	// ran is told of each run.
	ran func(schedule string, err error)
	// slots is full while as many backups are made as may be at a time.
	slots chan struct{}
	clock func() time.Time

	mu      sync.Mutex
	runners []*runner // by schedule, and of one schedule in the order of the pools
	all     []Schedule
	done    sync.WaitGroup
}

// NewEngine returns an engine that does nothing before Set. It makes so many backups at a time,
// and tells ran of each run.
func NewEngine(log *slog.Logger, parallel int, ran func(schedule string, err error)) *Engine {
	return &Engine{log: log, ran: ran, slots: make(chan struct{}, max(parallel, 1)), clock: time.Now}
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
			for _, t := range s.Does() {
				i := slices.IndexFunc(old, func(r *runner) bool { return reflect.DeepEqual(r.schedule, s) && r.pool == p && r.task == t })
				if i >= 0 {
					next = append(next, old[i])
					continue
				}
				r := e.runner(s, p, t)
				next, fresh = append(next, r), append(fresh, r)
			}
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

func (e *Engine) runner(s Schedule, p Pool, t Task) *runner {
	return &runner{
		schedule: s, pool: p, task: t, ran: e.ran, slots: e.slots, clock: e.clock, states: map[string]*state{}, stop: func() {},
		ended: make(chan struct{}), woken: make(chan struct{}, 1),
		log: e.log.With(slog.String("schedule", s.Name), slog.String("pool", p.Name()), slog.String("task", t.String())),
	}
}

// start begins to run a task of a schedule in a pool, when what it takes the place of has ended:
// that may be making a snapshot still. Where the driver cannot make any that is said once, if
// there is a volume for it.
func (e *Engine) start(ctx context.Context, r *runner, old []*runner) {
	if !r.able() {
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
			if o.schedule.Name == r.schedule.Name && o.pool.Name() == r.pool.Name() && o.task == r.task {
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
	// Runs are those of each volume.
	Runs []Run
}

// Run is how far one task is for one volume.
type Run struct {
	Pool, Volume string
	Task         Task
	// Last is when it was done last, Next when it is due; zero where that is not known.
	Last, Next time.Time
	// Running: it is being done.
	Running bool
	// Error is what went wrong the last time.
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
		sum.Volumes = sum.volumes()
		all = append(all, sum)
	}
	return all
}

// volumes counts those that there are runs of.
func (s *Status) volumes() int {
	seen := map[[2]string]bool{}
	for _, r := range s.Runs {
		seen[[2]string{r.Pool, r.Volume}] = true
	}
	return len(seen)
}
