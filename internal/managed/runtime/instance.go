package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
)

// instance is a plugin that is started, or about to be. verb is held by who starts or stops it; after the start the
// supervisor alone works on what is below it, until it is ended.
type instance struct {
	rt   *Runtime
	id   string
	verb chan struct{}

	log    *slog.Logger
	record record
	pub    *publication
	holder *holder
	gate   *os.File           // what lets a program of the host go on; nil otherwise
	cancel context.CancelFunc // ends the supervisor
	done   chan struct{}      // closed when it has ended; nil without one

	order   sync.Mutex // held from a change of state until it was told
	mu      sync.Mutex // also for writing what is below, which who holds verb may read without it
	plugin  Plugin
	out     *output
	proc    *process
	state   State
	changed chan struct{} // closed at each change of state
}

func newInstance(r *Runtime, id string) *instance {
	return &instance{
		rt: r, id: id, verb: make(chan struct{}, 1), log: r.opts.Logger.With(slog.String("plugin", id)),
		state: State{ID: id, Status: Stopped}, changed: make(chan struct{}),
	}
}

// prepare makes the instance that of p, with all that lives as long as it is started.
func (in *instance) prepare(p Plugin) error {
	r, socket := in.rt, p.Config.Interface.Socket
	in.mu.Lock()
	in.plugin = p
	in.mu.Unlock()
	in.log = r.opts.Logger.With(slog.String("plugin", p.ID), slog.String("name", p.Name))
	if p.Word != "" {
		in.log = slog.New(called{r.opts.Logger.Handler(), p.Word})
	}
	in.record = record{ID: p.ID, Name: p.Name, Rootfs: p.Rootfs, Propagated: p.Propagated, Socket: socket, Since: time.Now(), Version: p.Version, Serves: p.Serves}
	var err error
	discovery := r.opts.Discovery
	if p.Unpublished {
		discovery = ""
	}
	if in.pub, err = newPublication(discovery, r.path(p.ID), p.Name, socket); err != nil {
		return err
	}
	if err := os.MkdirAll(r.path(p.ID, "s"), 0o700); err != nil {
		return state.Classify(err)
	}
	if err := in.collect(); err != nil {
		in.closeOutput()
		return err
	}
	return nil
}

// collect has what the plugin writes read, and sees when it makes its socket anew.
func (in *instance) collect() error {
	r, p, pub := in.rt, &in.plugin, in.pub
	if in.out == nil {
		out, err := openOutput(filepath.Join(r.opts.Dir, in.id), in.log, r.limits.logBytes)
		if err != nil {
			return state.Classify(err)
		}
		out.klog = p.Word != ""
		in.mu.Lock()
		in.out = out
		in.mu.Unlock()
		for _, s := range out.streams {
			if err := r.watcher.add(filepath.Join(out.dir, s.name), unix.IN_MODIFY, func(string) { out.poke() }); err != nil {
				return state.Classify(err)
			}
		}
		out.poke() // what was written while no daemon was there
	}
	socket, log := p.Config.Interface.Socket, in.log
	err := r.watcher.add(r.path(in.id, "s"), unix.IN_CREATE|unix.IN_MOVED_TO, func(name string) {
		if name == socket || name == "" {
			if err := pub.again(r.path(in.id, "s", socket)); err != nil {
				log.Warn("managed plugin made its socket anew, which cannot be published", slog.String("error", err.Error()))
			}
		}
	})
	return state.Classify(err)
}

// publish lets the plugin's name be its own socket.
func (in *instance) publish() error {
	return in.pub.point(in.rt.path(in.id, "s", in.plugin.Config.Interface.Socket))
}

func (in *instance) dial(ctx context.Context) (net.Conn, error) {
	return dialIn(ctx, in.rt.path(in.id, "s"), in.plugin.Config.Interface.Socket)
}

// supervised tells whether it is started. It is called by who holds verb.
func (in *instance) supervised() bool { return in.done != nil }

// idle tells whether nothing is left of it.
func (in *instance) idle() bool {
	return !in.supervised() && in.current().Status == Stopped && in.out == nil
}

func (in *instance) current() State {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.state
}

// wait returns the state, and what is closed when there is another.
func (in *instance) wait() (State, <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.state, in.changed
}

func (in *instance) set(change func(*State)) {
	in.order.Lock()
	defer in.order.Unlock()
	in.mu.Lock()
	change(&in.state)
	s := in.state
	close(in.changed)
	in.changed = make(chan struct{})
	in.mu.Unlock()
	if in.rt.opts.Changed != nil {
		in.rt.opts.Changed(s)
	}
}

// output returns where the plugin's output is collected, nil where it is not.
func (in *instance) output() *output {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.out
}

func (in *instance) running(proc *process) {
	in.mu.Lock()
	in.proc = proc
	in.mu.Unlock()
}

// stop ends the supervisor, the plugin, and clears away what is left. It is called by who holds verb.
func (in *instance) stop(ctx context.Context, grace time.Duration) error {
	if grace <= 0 {
		grace = in.rt.limits.stop
	}
	if !in.supervised() && in.out == nil && in.proc == nil {
		if err := in.rt.stopLeft(ctx, in.id, grace); err != nil {
			return err
		}
		if in.current().Status != Stopped { // an earlier attempt failed half way
			in.set(func(s *State) { s.Status, s.Since, s.Pid, s.Error = Stopped, time.Now(), 0, "" })
		}
		return nil
	}
	in.set(func(s *State) { s.Status, s.Since, s.Next = Stopping, time.Now(), time.Time{} })
	in.rest()
	if in.pub != nil {
		if err := in.pub.withdraw(); err != nil {
			in.log.WarnContext(ctx, "managed plugin is stopped, and its name stays", slog.String("error", err.Error()))
		}
	}
	if in.proc != nil {
		if err := in.rt.terminate(in.id, in.proc, grace); err != nil {
			return in.plugin.errorf("%w", err)
		}
		in.out.drain()
		in.out.note("stopped: " + in.proc.exit.String())
		in.proc.close()
		in.running(nil)
	} else if in.out != nil {
		in.out.note("stopped")
	}
	if err := in.clear(ctx); err != nil {
		return in.plugin.errorf("%w", err)
	}
	in.set(func(s *State) { s.Status, s.Since, s.Pid, s.Error = Stopped, time.Now(), 0, "" })
	return nil
}

// rest ends the supervisor and leaves the plugin as it is.
func (in *instance) rest() {
	if in.done != nil {
		in.cancel()
		<-in.done
		in.done = nil
	}
	if in.holder != nil {
		in.holder.drop()
		in.holder = nil
	}
}

// detach lets go of it for good, at the end of the daemon.
func (in *instance) detach() {
	in.verb <- struct{}{}
	defer func() { <-in.verb }()
	in.rest()
	if in.proc != nil {
		in.proc.close()
		in.running(nil)
	}
	in.closeOutput()
}

func (in *instance) closeOutput() {
	if in.out == nil {
		return
	}
	for _, s := range in.out.streams {
		in.rt.watcher.remove(filepath.Join(in.out.dir, s.name))
	}
	in.rt.watcher.remove(in.rt.path(in.id, "s"))
	in.out.drain()
	in.out.close()
	in.mu.Lock()
	in.out = nil
	in.mu.Unlock()
}

// clear takes away all that the plugin has beyond its rootfs, its log and its files.
func (in *instance) clear(ctx context.Context) error {
	if in.out != nil {
		in.out.drain()
		in.out.flush()
	}
	in.closeOutput()
	if in.pub != nil {
		if err := in.pub.withdraw(); err != nil {
			return err
		}
	}
	return in.rt.clear(ctx, &in.record)
}

// clear takes away what a record tells of. The record goes last.
func (r *Runtime) clear(ctx context.Context, rec *record) error {
	if err := r.destroy(ctx, rec.ID, rec.Serves); err != nil {
		return err
	}
	if rec.Rootfs != "" {
		if err := unmountBelow(rec.Rootfs, false); err != nil {
			return err
		}
	}
	if rec.Propagated != "" {
		if err := unmountBelow(rec.Propagated, true); err != nil {
			return err
		}
	}
	return removeTree(r.path(rec.ID))
}

// stopLeft stops what an earlier daemon started, and what nobody knows but by its directory.
func (r *Runtime) stopLeft(ctx context.Context, id string, grace time.Duration) error {
	rec, err := r.loadRecord(id)
	if err != nil {
		return fmt.Errorf("plugin %q: %w", id, err)
	}
	if rec == nil {
		rec = &record{ID: id}
	}
	if proc := rec.process(); proc != nil {
		err := r.terminate(id, proc, grace)
		proc.close()
		if err != nil {
			return fmt.Errorf("plugin %q: %w", id, err)
		}
	}
	if rec.Name != "" {
		if pub, err := newPublication(r.opts.Discovery, r.path(id), rec.Name, rec.Socket); err == nil {
			if err := pub.withdraw(); err != nil {
				return fmt.Errorf("plugin %q: %w", id, err)
			}
		}
	}
	if err := r.clear(ctx, rec); err != nil {
		return fmt.Errorf("plugin %q: %w", id, err)
	}
	return nil
}

// terminate ends the first process of a plugin, politely at first.
func (r *Runtime) terminate(id string, p *process, grace time.Duration) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	if dirs, err := cgroupDirs(cgroupOf(id)); err == nil {
		for _, dir := range dirs {
			thaw(dir) // what is frozen does not end
		}
	}
	timer.Reset(r.limits.stop)
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
		return errors.New("its process does not end, though it was killed; it may be waiting for storage that does not answer")
	}
}
