// Package jobs runs work that may outlast the call that wanted it, and the process.
//
// A job is about one object. Who wants the same of an object while it is being done takes part
// in it; who wants something else waits until it is done. What a job must not forget is in one
// small file, written before the step that depends on it; a job whose process has ended goes on
// with it. When a job has ended there is no file any more: the world is the result.
package jobs

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Job is what can be told of one.
type Job struct {
	ID string `json:"id"`
	// Kind is the verb, such as "create"; Object what it is done to, such as a volume's name.
	Kind   string `json:"kind"`
	Object string `json:"object"`
	// State is the step that it is at, since Since.
	State string    `json:"state"`
	Began time.Time `json:"began"`
	Since time.Time `json:"since"`
	// Error is what went wrong last: of a job that goes on, what it tries to get over; of one
	// that has ended, why.
	Error string `json:"error,omitempty"`
	Ended bool   `json:"ended,omitempty"`
}

// Kind is one verb.
type Kind struct {
	Name string
	// Volatile jobs leave no file: the world says by itself what there is to finish.
	Volatile bool
	// Limit bounds one job; 0 is an hour. A job that it ends has failed.
	Limit time.Duration
	// Do does the work, from the step that the Run is at. It may be called again after any
	// of its lines. An error ends the job, unless the process is ending.
	Do func(ctx context.Context, r *Run) error
}

const defaultLimit = time.Hour

// Keeper has the jobs of one pool.
type Keeper struct {
	root  *os.Root // nil where nothing is written down
	log   *slog.Logger
	kinds map[string]Kind
	stop  context.CancelCauseFunc
	ctx   context.Context //nolint:containedctx // that of the jobs, which outlive calls
	all   sync.WaitGroup

	mu     sync.Mutex
	runs   map[string]*Run // by object
	recent []Job           // that have failed, the oldest first
}

// Run is a job at work.
type Run struct {
	keeper *Keeper
	kind   Kind
	key    string
	done   chan struct{}
	err    error // set when done is closed
	// resumed tells that an earlier process began it.
	resumed bool

	mu   sync.Mutex
	job  Job
	data json.RawMessage
}

// record is a job in its file.
type record struct {
	Job
	Key  string          `json:"key,omitempty"`
	Data json.RawMessage `json:"data,omitempty"`
}

const recordVersion = 1

// errEnding is the cause of the end of what still runs when the process ends. It goes on later.
var errEnding = errdefs.Errorf(errdefs.ErrUnavailable, "the daemon is ending; the job goes on when it is back")

// Open makes a Keeper with its files in dir, which it makes. What was cut off there goes on
// when [Keeper.Resume] is called. A file that makes no sense is left where it is, and logged.
func Open(ctx context.Context, dir string, log *slog.Logger, kinds ...Kind) (*Keeper, error) {
	k := &Keeper{log: log, kinds: map[string]Kind{}, runs: map[string]*Run{}}
	for _, kind := range kinds {
		k.kinds[kind.Name] = kind
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, state.Classify(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, state.Classify(err)
	}
	if err := state.Clean(root, "."); err != nil {
		_ = root.Close()
		return nil, err
	}
	k.root = root
	k.ctx, k.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	return k, nil
}

// Resume goes on with what was cut off.
func (k *Keeper) Resume() error {
	return state.Each(k.root, ".", recordVersion, func(file string, rec record, err error) {
		if err != nil {
			k.log.Error("job cannot be read, and does not go on", slog.Any("error", err))
			return
		}
		kind, ok := k.kinds[rec.Kind]
		if !ok || rec.ID+".json" != file {
			k.log.Error("job is of no kind that is known, and does not go on", slog.String("file", file))
			return
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.runs[rec.Object] == nil {
			k.log.Info("job goes on", slog.String("job", rec.Kind), slog.String("object", rec.Object), slog.String("state", rec.State))
			k.begin(&Run{keeper: k, kind: kind, key: rec.Key, job: rec.Job, data: rec.Data, done: make(chan struct{}), resumed: true})
		}
	})
}

// Do runs a job and waits for it, or takes part in the one that does the same already: of the
// same kind, for the same object, with the same key. Another one for the object is waited for
// first. data is what the Run begins with, for [Run.Load].
//
// When ctx ends, the job goes on, and the error says so: ErrUnavailable.
func (k *Keeper) Do(ctx context.Context, kind, object, key string, data any) error {
	for {
		r, joined, err := k.run(kind, object, key, data) //nolint:contextcheck // the job outlives the call
		if err != nil {
			return err
		}
		select {
		case <-r.done:
			if joined {
				return r.err
			}
		case <-ctx.Done():
			return r.late(ctx)
		}
	}
}

// run returns the Run to wait for. joined tells that it is the one that was wanted.
func (k *Keeper) run(kind, object, key string, data any) (r *Run, joined bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.runs[object]; r != nil {
		return r, r.kind.Name == kind && r.key == key, nil
	}
	if k.ctx.Err() != nil {
		return nil, false, context.Cause(k.ctx)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return nil, false, err
	}
	now := time.Now()
	r = &Run{keeper: k, kind: k.kinds[kind], key: key, data: text, done: make(chan struct{}), job: Job{
		ID: rand.Text(), Kind: kind, Object: object, Began: now, Since: now,
	}}
	k.begin(r)
	return r, true, nil
}

// begin has the work done. The caller has the lock.
func (k *Keeper) begin(r *Run) {
	k.runs[r.job.Object] = r
	k.all.Go(func() {
		limit := cmp.Or(r.kind.Limit, defaultLimit)
		ctx, cancel := context.WithTimeoutCause(k.ctx, limit, errdefs.Errorf(errdefs.ErrUnavailable, "gave up after %s", limit))
		defer cancel()
		err := r.write()
		if err == nil {
			err = r.kind.Do(ctx, r)
		}
		k.end(r, err)
	})
}

// maxRecent bounds how many failed jobs are remembered, for a day.
const maxRecent = 100

func (k *Keeper) end(r *Run, err error) {
	ending := k.ctx.Err() != nil && err != nil
	if !r.kind.Volatile && !ending {
		if rerr := state.Remove(k.root, r.file()); rerr != nil {
			err = errors.Join(err, rerr)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r.err = err
	if ending {
		r.err = context.Cause(k.ctx)
	} else if err != nil {
		job := r.Job()
		job.Ended, job.Error = true, errdefs.OneLine(err.Error())
		k.recent = append(k.recent, job)
		k.recent = k.recent[max(0, len(k.recent)-maxRecent):]
	}
	delete(k.runs, r.job.Object)
	close(r.done)
}

// Jobs returns what runs, and what has failed in the last day, the oldest first.
func (k *Keeper) Jobs() []Job {
	k.mu.Lock()
	runs := make([]*Run, 0, len(k.runs))
	for _, r := range k.runs {
		runs = append(runs, r)
	}
	all := slices.Clone(k.recent)
	k.mu.Unlock()
	all = slices.DeleteFunc(all, func(j Job) bool { return time.Since(j.Began) > 24*time.Hour })
	for _, r := range runs {
		all = append(all, r.Job())
	}
	slices.SortFunc(all, func(a, b Job) int { return a.Began.Compare(b.Began) })
	return all
}

// Of returns the job that runs for an object.
func (k *Keeper) Of(object string) (Job, bool) {
	k.mu.Lock()
	r := k.runs[object]
	k.mu.Unlock()
	if r == nil {
		return Job{}, false
	}
	return r.Job(), true
}

// Close ends what runs, which goes on when its files are found by the next [Keeper.Resume], and
// waits for it until ctx ends.
func (k *Keeper) Close(ctx context.Context) error {
	k.mu.Lock() // whoever is about to begin a job has begun it, or will not
	k.stop(errEnding)
	k.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		k.all.Wait()
		_ = k.root.Close()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("jobs: %w", context.Cause(ctx))
	}
}

// Job returns what can be told of it.
func (r *Run) Job() Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.job
}

// Object is what the job is about, Key which of its kind it is.
func (r *Run) Object() string { return r.job.Object }

// Key is as it was given to [Keeper.Do].
func (r *Run) Key() string { return r.key }

// Resumed tells whether an earlier process began the job: some of it may have happened.
func (r *Run) Resumed() bool { return r.resumed }

// State is the step that it is at, empty at the beginning.
func (r *Run) State() string { return r.Job().State }

// Load decodes what was written down last.
func (r *Run) Load(v any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return json.Unmarshal(r.data, v)
}

// Step writes down that the job is at a step, and what it must not forget; nil keeps what there
// is. When it returns nil that is on the disk.
func (r *Run) Step(step string, data any) error {
	r.mu.Lock()
	if data != nil {
		text, err := json.Marshal(data)
		if err != nil {
			r.mu.Unlock()
			return err
		}
		r.data = text
	}
	if r.job.State != step {
		r.job.State, r.job.Since = step, time.Now()
	}
	r.job.Error = ""
	r.mu.Unlock()
	return r.write()
}

// Trouble has the job say what it tries to get over.
func (r *Run) Trouble(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.Error = ""
	if err != nil {
		r.job.Error = errdefs.OneLine(err.Error())
	}
}

func (r *Run) file() string { return r.job.ID + ".json" }

func (r *Run) write() error {
	if r.kind.Volatile {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return state.Write(r.keeper.root, r.file(), recordVersion, record{r.job, r.key, r.data})
}

// late is the error of who cannot wait any longer.
func (r *Run) late(ctx context.Context) error {
	j := r.Job()
	text := j.Kind
	if j.State != "" {
		text += ", " + j.State
	}
	err := fmt.Errorf("%s for %s, and going on: %w", text, time.Since(j.Began).Round(time.Second), context.Cause(ctx))
	if j.Error != "" {
		err = fmt.Errorf("%w; last: %s", err, j.Error)
	}
	return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "ask again to wait for it; see remora jobs")
}
