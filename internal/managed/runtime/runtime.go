package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Options is what a Runtime is made of.
type Options struct {
	// Dir is the directory of what outlives a reboot: logs.
	Dir string
	// RunDir is the directory of what a reboot ends: bundles, sockets. To publish by hard link it is on the file system
	// of Discovery.
	RunDir string
	// Discovery is the directory in which engines look for plugins; empty publishes nothing.
	Discovery string
	// Runc is the name or path of runc; empty is "runc".
	Runc string
	// Logger is told what plugins write, and what becomes of them.
	Logger *slog.Logger
	// Ready is how long a plugin's socket may take to answer; 0 is 12 seconds, as engines have it.
	Ready time.Duration
	// Changed, if not nil, is called after each change of a plugin's state, in order for each plugin. It must return soon
	// and call nothing of the Runtime that starts or stops.
	Changed func(State)
}

// HealthyTime is how long a plugin must have been up for its restarts to be forgotten.
const HealthyTime = time.Minute

// limits are the times that everything has; tests have shorter ones.
type limits struct {
	ready    time.Duration // for its socket to answer; the engine gives 12 s
	stop     time.Duration // from SIGTERM to SIGKILL, and again to giving up
	first    time.Duration // before the first restart; doubled each time
	last     time.Duration // the longest such wait, so that a caller who is held sees one attempt at least
	healthy  time.Duration
	logBytes int64
}

func defaultLimits() limits {
	return limits{ready: 12 * time.Second, stop: 10 * time.Second, first: 100 * time.Millisecond, last: 20 * time.Second, healthy: HealthyTime, logBytes: maxLog}
}

// Runtime runs plugins. Its methods may be called from many goroutines.
type Runtime struct {
	opts    Options
	limits  limits
	root    *os.Root // RunDir
	boot    string
	watcher *watcher

	mu        sync.Mutex
	instances map[string]*instance
	closed    bool
}

// Open makes the directories and starts nothing.
func Open(opts Options) (*Runtime, error) {
	if opts.Runc == "" {
		opts.Runc = "runc"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []*string{&opts.Dir, &opts.RunDir} {
		if err := os.MkdirAll(*dir, 0o700); err != nil {
			return nil, state.Classify(err)
		}
		real, err := filepath.EvalSymlinks(*dir)
		if err == nil {
			real, err = filepath.Abs(real)
		}
		if err != nil {
			return nil, state.Classify(err)
		}
		*dir = real
	}
	r := &Runtime{opts: opts, limits: defaultLimits(), instances: map[string]*instance{}}
	if opts.Ready > 0 {
		r.limits.ready = opts.Ready
	}
	var err error
	if r.boot, err = bootID(); err != nil {
		return nil, err
	}
	if r.root, err = os.OpenRoot(opts.RunDir); err != nil {
		return nil, state.Classify(err)
	}
	if r.watcher, err = newWatcher(); err != nil {
		_ = r.root.Close()
		return nil, err
	}
	return r, nil
}

func (r *Runtime) path(id string, more ...string) string {
	return filepath.Join(append([]string{r.opts.RunDir, id}, more...)...)
}

// Close lets go of the plugins, which go on running.
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	var all []*instance
	for _, in := range r.instances {
		all = append(all, in)
	}
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, in := range all {
		wg.Go(in.detach)
	}
	wg.Wait()
	r.watcher.close()
	return r.root.Close()
}

// Start starts a plugin and keeps it running until Stop. It returns when the plugin's socket accepts a connection; a
// plugin that does not come as far within 12 seconds is stopped, and the error has its last words. To start what is
// started changes nothing.
func (r *Runtime) Start(ctx context.Context, p Plugin) error {
	if err := p.check(); err != nil {
		return err
	}
	in, unlock, err := r.lock(ctx, p.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if in.supervised() {
		return nil
	}
	if err := in.prepare(p); err != nil {
		return p.errorf("%w", err)
	}
	in.set(func(s *State) { *s = State{ID: p.ID, Name: p.Name, Status: Starting, Since: time.Now()} })
	proc, err := in.launch(ctx)
	if err == nil {
		if err = in.publish(); err != nil {
			in.end(ctx, proc, r.limits.stop)
		}
	}
	if err != nil {
		cerr := in.clear(ctx)
		in.set(func(s *State) { s.Status, s.Since, s.Pid = Stopped, time.Now(), 0 })
		return p.errorf("%w", errors.Join(err, cerr))
	}
	in.supervise(ctx, proc)
	return nil
}

// Stop ends a plugin: SIGTERM, and SIGKILL after a grace (0 is 10 seconds). When it returns nil nothing of the plugin is
// left: no process, control group, mount, name or socket. What is mounted in its propagated directory is unmounted too.
// Files in there, its rootfs and its log stay. To stop what is not started is no error.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := checkID(id); err != nil {
		return err
	}
	in, unlock, err := r.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	// Half a stop helps nobody.
	return in.stop(context.WithoutCancel(ctx), grace)
}

// Remove stops a plugin and deletes its log.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := r.Stop(ctx, id, 0); err != nil {
		return err
	}
	return removeTree(filepath.Join(r.opts.Dir, id))
}

// Adopt takes over what an earlier daemon left: of the plugins given, those that run go on running and the others are
// started; what else it started is stopped. It returns when each was tried once. What cannot be started is tried again
// like what ended by itself, since what it needs may come later, as after a boot.
func (r *Runtime) Adopt(ctx context.Context, plugins []Plugin) error {
	entries, err := os.ReadDir(r.opts.RunDir)
	if err != nil {
		return state.Classify(err)
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	do := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wanted := func(id string) bool { return slices.ContainsFunc(plugins, func(p Plugin) bool { return p.ID == id }) }
	for _, e := range entries {
		if id := e.Name(); e.IsDir() && len(id) > len("runc") && idForm.MatchString(id) && !wanted(id) {
			do(func() error { return r.discard(ctx, id) })
		}
	}
	for _, p := range plugins {
		do(func() error { return r.adopt(ctx, p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// discard stops what an earlier daemon left. What was started since is no such thing: a plugin may be enabled while the
// others are taken over.
func (r *Runtime) discard(ctx context.Context, id string) error {
	in, unlock, err := r.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if in.supervised() {
		return nil
	}
	return in.stop(context.WithoutCancel(ctx), 0)
}

func (r *Runtime) adopt(ctx context.Context, p Plugin) error {
	if err := p.check(); err != nil {
		return err
	}
	in, unlock, err := r.lock(ctx, p.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if in.supervised() {
		return nil
	}
	rec, err := r.loadRecord(p.ID)
	if err != nil {
		return p.errorf("%w", err)
	}
	if err := in.prepare(p); err != nil {
		return p.errorf("%w", err)
	}
	if rec != nil {
		in.record.Restarts, in.record.Last = rec.Restarts, rec.Last
	}
	proc := rec.process()
	if proc != nil && (rec.Version != p.Version || !sharing(proc.pid, p.Shared)) {
		err := r.terminate(p.ID, proc, r.limits.stop)
		proc.close()
		if err != nil {
			return p.errorf("%w", err)
		}
		rec.Pid, proc = 0, nil
	}
	if proc != nil {
		in.record.Pid, in.record.Start, in.record.Since = rec.Pid, rec.Start, rec.Since
		in.set(func(s *State) {
			*s = State{ID: p.ID, Name: p.Name, Status: Running, Since: rec.Since, Pid: rec.Pid, Restarts: rec.Restarts, Last: rec.Last}
		})
		if err := in.publish(); err != nil {
			in.log.WarnContext(ctx, "managed plugin runs, and cannot be published", slog.String("error", err.Error()))
		}
	} else {
		if rec != nil && rec.Pid != 0 {
			in.record.Last = &Exit{Time: time.Now()}
		}
		in.set(func(s *State) {
			*s = State{ID: p.ID, Name: p.Name, Status: Starting, Since: time.Now(), Last: in.record.Last}
		})
		proc, err = in.launch(ctx)
		if err == nil {
			if err = in.publish(); err != nil {
				in.end(ctx, proc, r.limits.stop)
				proc = nil
			}
		}
		if err != nil {
			in.hold(ctx)
			in.failed(err)
		}
	}
	in.supervise(ctx, proc)
	return nil
}

// lock returns the instance of a plugin, which no other verb works on until unlock is called.
func (r *Runtime) lock(ctx context.Context, id string) (in *instance, unlock func(), err error) {
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return nil, nil, errdefs.Errorf(errdefs.ErrUnavailable, "plugin %q: the daemon stops", id)
		}
		in = r.instances[id]
		if in == nil {
			in = newInstance(r, id)
			r.instances[id] = in
		}
		r.mu.Unlock()
		select {
		case in.verb <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("plugin %q: %w", id, context.Cause(ctx))
		}
		r.mu.Lock()
		current := r.instances[id] == in && !r.closed
		r.mu.Unlock()
		if current {
			break
		}
		<-in.verb // it was forgotten meanwhile
	}
	return in, func() {
		r.mu.Lock()
		if in.idle() {
			delete(r.instances, id)
		}
		r.mu.Unlock()
		<-in.verb
	}, nil
}

func (r *Runtime) find(id string) *instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.instances[id]
}

// State returns how a plugin is. One that was not started is Stopped.
func (r *Runtime) State(id string) State {
	if in := r.find(id); in != nil {
		return in.current()
	}
	return State{ID: id, Status: Stopped}
}

// States returns all plugins that are started, ordered by name.
func (r *Runtime) States() []State {
	r.mu.Lock()
	var all []*instance
	for _, in := range r.instances {
		all = append(all, in)
	}
	r.mu.Unlock()
	var states []State
	for _, in := range all {
		if s := in.current(); s.Status != Stopped {
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return states
}

// Socket returns the path of the socket that a plugin with this name for it listens on while it is started. It may be
// longer than a path may be that is connected to; Dial does not mind.
func (r *Runtime) Socket(id, socket string) string { return r.path(id, "s", socket) }

// Dial connects to a plugin. While it is started again the call waits, for HoldTime at most.
func (r *Runtime) Dial(ctx context.Context, id string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HoldTime)
	defer cancel()
	for {
		in := r.find(id)
		if in == nil {
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "plugin %q: is not started", id)
		}
		s, changed := in.wait()
		if s.Status == Running {
			c, err := in.dial(ctx)
			if err == nil {
				return c, nil
			}
			s.Error = err.Error()
		}
		if s.Status == Stopped || s.Status == Stopping {
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "plugin %q: is not started", s.Name)
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // its end may not have been noticed yet
		case <-ctx.Done():
			return nil, errdefs.Errorf(errdefs.ErrUnavailable, "plugin %q: does not answer: %s", s.Name, s.Error)
		}
	}
}
