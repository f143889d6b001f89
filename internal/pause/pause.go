// Package pause has engines pause containers for the time in which snapshots of several volumes are
// made, so that nothing is written between the first and the last.
//
// A container that stays paused is worse than snapshots that are apart. So it is written down which
// are to be paused before the first one is; they run on after [Limit] in any case, when the daemon
// stops, and when the next one starts.
package pause

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Limit is how long containers are paused at most.
const Limit = 30 * time.Second

const (
	// Again is when an engine is asked once more that did not let a container run on.
	Again = 5 * time.Second
	// answerTime bounds one answer to that, so that an engine that hangs does not keep a stop.
	answerTime = 10 * time.Second
)

// Container is one that is to be paused.
type Container struct {
	Socket string `json:"socket"`
	ID     string `json:"id"`
	Name   string `json:"name"`
}

func (c Container) engine() engine.Engine { return engine.Engine{Socket: c.Socket} }

// under is what the file of a pause says.
type under struct {
	Containers []Container `json:"containers"`
	Since      time.Time   `json:"since"`
}

const underVersion = 1

// Pauser pauses containers.
type Pauser struct {
	// Dir is where it is written down which are.
	Dir string
	// Limit is how long they are at most, and Again when an engine is asked once more that did not
	// let a container run on.
	Limit, Again time.Duration
	Log          *slog.Logger

	life   context.Context //nolint:containedctx // nobody who hangs up leaves a container paused
	mu     sync.Mutex
	held   map[*Held]bool
	closed bool
	tries  sync.WaitGroup
	stop   chan struct{} // closed by Close
}

// New returns a Pauser that has the times of this package.
func New(ctx context.Context, dir string, log *slog.Logger) *Pauser {
	return &Pauser{Dir: dir, Limit: Limit, Again: Again, Log: log, life: context.WithoutCancel(ctx), held: map[*Held]bool{}, stop: make(chan struct{})}
}

// Recover has all run on which a Pauser before this one has left paused. What cannot be reached yet
// is tried again until Close. It is called before the first Pause.
func (p *Pauser) Recover(ctx context.Context) {
	for file, u := range p.left(ctx) {
		p.Log.WarnContext(ctx, "containers were paused when the daemon ended; they run on now", slog.Any("containers", names(u.Containers)), slog.Time("since", u.Since))
		p.tries.Go(func() { p.tryAgain(file, u.Containers) })
	}
}

// Held is containers that are paused.
type Held struct {
	p     *Pauser
	file  string
	all   []Container
	since time.Time
	took  time.Duration
	timer *time.Timer
	late  atomic.Bool
	once  sync.Once
	err   error
	// unsure: an engine did not answer, and may pause one yet.
	unsure bool
}

// Pause pauses containers, all at the same time. Where one cannot be, none stays paused. End has to
// be called; when the limit is over it is called in any case.
func (p *Pauser) Pause(ctx context.Context, all []Container) (*Held, error) {
	h := &Held{p: p, since: time.Now()}
	if len(all) == 0 {
		return h, nil
	}
	var err error
	if h.file, err = p.note(under{all, h.since}); err != nil {
		return nil, fmt.Errorf("pause: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.Limit, errdefs.Errorf(errdefs.ErrUnavailable, "gave up after %s", p.Limit))
	defer cancel()
	errs, ours := make([]error, len(all)), make([]bool, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { ours[i], errs[i] = c.engine().Pause(ctx, c.ID) })
	}
	wg.Wait()
	for i, c := range all {
		if ours[i] || errs[i] != nil {
			h.all = append(h.all, c)
		}
		if errs[i] != nil {
			h.unsure = true
			err = errdefs.Join(err, fmt.Errorf("container %q: cannot be paused: %w", c.Name, errs[i]))
		}
	}
	if err == nil {
		err = p.add(h)
	}
	if err != nil {
		return nil, errdefs.Join(err, h.End())
	}
	h.timer = time.AfterFunc(p.Limit-time.Since(h.since), func() {
		h.late.Store(true)
		h.end() // who calls End is told
	})
	return h, nil
}

// End has the containers run on. What cannot be done now is tried again until it is.
func (h *Held) End() error {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.end()
	return h.err
}

func (h *Held) end() {
	h.once.Do(func() {
		if h.file == "" {
			return
		}
		left, err := unpause(h.p.life, h.all)
		h.took, h.err = time.Since(h.since), err
		h.p.ended(h, left)
	})
}

// Late tells whether the limit was over before End was called.
func (h *Held) Late() bool { return h.late.Load() }

// Names are those of the containers that were paused.
func (h *Held) Names() []string { return names(h.all) }

// Until is when they run on in any case; zero where none was paused.
func (h *Held) Until() time.Time {
	if h.timer == nil {
		return time.Time{}
	}
	return h.since.Add(h.p.Limit)
}

// Took is how long they were paused, after End.
func (h *Held) Took() time.Duration { return h.took }

// unpause has containers run on, all at the same time, and returns those that could not be reached.
func unpause(ctx context.Context, all []Container) (left []Container, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { errs[i] = c.engine().Unpause(ctx, c.ID) })
	}
	wg.Wait()
	for i, c := range all {
		if errs[i] != nil {
			left = append(left, c)
			err = errdefs.Join(err, fmt.Errorf("container %q: is still paused, and that is tried again: %w", c.Name, errs[i]))
		}
	}
	if err != nil {
		err = errdefs.Hint(err, "docker unpause "+strings.Join(names(left), " "))
	}
	return left, err
}

func names(all []Container) []string {
	var of []string
	for _, c := range all {
		of = append(of, c.Name)
	}
	return of
}
