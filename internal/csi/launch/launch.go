package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Config is what a driver is started with.
type Config struct {
	Keys
	// Pool is the name of the pool.
	Pool string
	// Dir is the driver's own directory for what outlives a reboot, and RunDir for what does not.
	Dir, RunDir string
	// Mounts is the directory below which it mounts. It has the same path in an image.
	Mounts string
	// Registry fetches images; nil is one that trusts what any host trusts.
	Registry *registry.Client
	// Extra is given to the driver besides what its keys say.
	Extra Extra
	Log   *slog.Logger
}

// Extra is what somebody else than the user gives to a driver.
type Extra struct {
	Env   []string
	binds []bind
}

// Bind gives a driver in an image something of the host, to be read only.
func (e *Extra) Bind(source, inside string) { e.binds = append(e.binds, bind{source, inside, true}) }

// readyTime is how long a driver may take until it listens: some first talk to their cloud.
const readyTime = time.Minute

// Waits between attempts to fetch an image.
const (
	firstWait = time.Second
	lastWait  = 5 * time.Minute
)

// Line is one line that a driver wrote.
type Line = runtime.Line

// Process is the driver of a pool.
type Process struct {
	c    Config
	kind Kind
	id   string
	log  *slog.Logger
	rt   *runtime.Runtime // nil where nothing is started

	stop context.CancelFunc
	done chan struct{} // closed when nothing is fetched or begun any more

	mu      sync.Mutex
	state   State
	changed chan struct{} // closed at each change
}

// Status is what a driver does at the moment.
type Status string

// The statuses of a driver.
const (
	Fetching Status = "fetching" // its image
	Starting Status = "starting"
	Running  Status = "running"
	Waiting  Status = "waiting" // it ended, or its image could not be had; State.Error says why, and Next when it is tried again
	Stopped  Status = "stopped"
	// Elsewhere is the status of an external driver, which others start and stop.
	Elsewhere Status = "external"
)

// State is how a driver is.
type State struct {
	Kind     Kind
	Status   Status
	Pid      int
	Since    time.Time
	Restarts int
	Next     time.Time
	// Digest is that of the image, where there is one.
	Digest string
	// Error is one line on what is wrong; empty where nothing is.
	Error string
}

// Start begins to start the driver of a pool, and takes over one that an earlier daemon started. It refuses what cannot be
// meant, and waits for nothing; [Process.Ready] does.
func Start(ctx context.Context, c Config) (*Process, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &Process{c: c, kind: c.Kind(), log: c.Log, done: make(chan struct{}), changed: make(chan struct{}), stop: func() {}}
	p.state = State{Kind: p.kind, Status: Elsewhere, Since: time.Now()}
	if p.kind == External {
		close(p.done)
		return p, nil
	}
	// Drivers refuse to mount where others could not see it, and what they mounted there could not be undone.
	if err := mount.Share(c.Mounts); err != nil {
		return nil, fmt.Errorf("share %s with the CSI driver: %w", c.Mounts, err)
	}
	if c.NodeID == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		p.c.NodeID = name
	}
	if err := p.open(); err != nil {
		return nil, err
	}
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	go p.begin(ctx)
	return p, nil
}

func (p *Process) open() error {
	for _, dir := range []*string{&p.c.Dir, &p.c.RunDir, &p.c.Mounts} {
		if err := os.MkdirAll(*dir, 0o700); err != nil {
			return state.Classify(err)
		}
		real, err := filepath.EvalSymlinks(*dir)
		if err != nil {
			return state.Classify(err)
		}
		*dir = real
	}
	p.id = idOf(p.c.RunDir)
	p.state.Status = Starting
	var err error
	p.rt, err = runtime.Open(runtime.Options{
		Dir: filepath.Join(p.c.Dir, "log"), RunDir: p.c.RunDir, Logger: p.log, Ready: readyTime, Changed: p.told,
	})
	if err == nil && len(p.Endpoint()) > maxSocket {
		err = errors.Join(errdefs.Errorf(errdefs.ErrInvalid, "its socket %s would have a path of %d bytes, where %d are possible", p.Endpoint(), len(p.Endpoint()), maxSocket), p.rt.Close())
	}
	return err
}

// Endpoint is the path of the socket on which the node's services are, whether the driver runs yet or not.
func (p *Process) Endpoint() string {
	if p.kind == External {
		return socketPath(p.c.Endpoint)
	}
	return p.rt.Socket(p.id, socketName)
}

// Controller is the path of the socket of the controller's services; mostly it is the other one.
func (p *Process) Controller() string {
	return cmp.Or(socketPath(p.c.Controller), p.Endpoint())
}

// begin fetches what is to be fetched and hands the driver to the runtime, which keeps it running from then on.
func (p *Process) begin(ctx context.Context) {
	defer close(p.done)
	wait := firstWait
	for {
		err := p.attempt(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		p.set(func(s *State) { s.Status, s.Error, s.Next = Waiting, err.Error(), time.Now().Add(wait) })
		p.log.ErrorContext(ctx, "CSI driver cannot be started, and is tried again", slog.String("error", err.Error()), slog.Duration("wait", wait))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, lastWait)
	}
}

func (p *Process) attempt(ctx context.Context) error {
	var img image
	if p.kind == Image {
		p.set(func(s *State) { s.Status, s.Next = Fetching, time.Time{} })
		var err error
		if img, err = p.fetch(ctx); err != nil {
			return err
		}
		p.set(func(s *State) { s.Status, s.Error, s.Digest = Starting, "", img.Digest.String() })
	}
	run, err := p.spec(img)
	if err != nil {
		return err
	}
	return p.rt.Adopt(ctx, []runtime.Plugin{run})
}

// told hears what becomes of the driver.
func (p *Process) told(r runtime.State) {
	p.set(func(s *State) {
		s.Pid, s.Restarts, s.Next, s.Error = r.Pid, r.Restarts, r.Next, r.Error
		switch r.Status {
		case runtime.Running:
			s.Status = Running
		case runtime.Starting:
			s.Status = Starting
		case runtime.Restarting:
			s.Status = Waiting
			if s.Error == "" && r.Last != nil {
				s.Error = "it ended: " + r.Last.String()
			}
		case runtime.Stopping, runtime.Stopped:
			s.Status = Stopped
		}
	})
}

func (p *Process) set(change func(*State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.state.Status
	change(&p.state)
	if p.state.Status != was {
		p.state.Since = time.Now()
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// State returns how the driver is. Of an external one only its socket is known.
func (p *Process) State() State {
	p.mu.Lock()
	s := p.state
	p.mu.Unlock()
	if p.kind == External {
		for _, socket := range []string{p.Endpoint(), p.Controller()} {
			if fi, err := os.Stat(socket); err != nil || fi.Mode()&os.ModeSocket == 0 {
				s.Error = socket + ": there is no socket; the CSI driver does not run"
			}
		}
	}
	return s
}

// Ready waits until the driver listens, and says why it does not where ctx ends first.
func (p *Process) Ready(ctx context.Context) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		s := p.State()
		switch {
		case s.Status == Running, s.Status == Elsewhere && s.Error == "":
			return nil
		case s.Status == Stopped:
			return errdefs.Errorf(errdefs.ErrUnavailable, "the CSI driver of pool %q is stopped", p.c.Pool)
		}
		select {
		case <-changed:
			continue
		case <-time.After(time.Second): // an external one tells nobody
		case <-ctx.Done():
			why := cmp.Or(s.Error, "it is "+string(s.Status))
			return errdefs.Errorf(errdefs.ErrUnavailable, "the CSI driver of pool %q does not run: %s", p.c.Pool, why)
		}
	}
}

// Logs returns the last lines that the driver wrote, with the time and the stream of each.
func (p *Process) Logs(ctx context.Context, tail int) ([]Line, error) {
	if p.rt == nil {
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "the CSI driver of pool %q is not started by the daemon, which has no log of it", p.c.Pool)
	}
	var lines []Line
	for line, err := range p.rt.Logs(ctx, p.id, tail, false) {
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// Close lets go of the driver, which runs on, as do its mounts.
func (p *Process) Close() error {
	p.stop()
	<-p.done
	if p.rt == nil {
		return nil
	}
	return p.rt.Close()
}

// Stop ends the driver. Its mounts stay, with what serves them.
func (p *Process) Stop(ctx context.Context) error {
	p.stop()
	<-p.done
	if p.rt == nil {
		return nil
	}
	return p.rt.Stop(ctx, p.id, 0)
}
