package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// launch makes the container anew and returns its process when its socket accepts. What it began and did not finish it
// takes back, but for mounts in the propagated directory: containers may have them in use.
func (in *instance) launch(ctx context.Context) (*process, error) {
	r := in.rt
	if err := r.destroy(ctx, in.id, in.record.Serves); err != nil {
		return nil, err
	}
	if in.plugin.Rootfs != "" {
		if err := unmountBelow(in.plugin.Rootfs, false); err != nil {
			return nil, err
		}
	}
	in.record.Pid, in.record.Start = 0, 0
	if err := r.saveRecord(&in.record); err != nil {
		return nil, err
	}
	proc, err := in.create(ctx)
	if err != nil {
		return nil, errors.Join(err, r.destroy(ctx, in.id, in.record.Serves))
	}
	if err = in.start(ctx); err == nil {
		err = in.await(ctx, proc)
	}
	if err == nil {
		in.record.Pid, in.record.Start, in.record.Since = proc.pid, proc.start, time.Now()
		if err = r.saveRecord(&in.record); err == nil {
			in.set(func(s *State) {
				s.Status, s.Since, s.Pid, s.Error, s.Next = Running, in.record.Since, proc.pid, "", time.Time{}
				s.Restarts = in.record.Restarts
			})
			in.running(proc)
			return proc, nil
		}
	}
	in.end(ctx, proc, r.limits.stop)
	return nil, err
}

// end takes back a launch.
func (in *instance) end(ctx context.Context, proc *process, grace time.Duration) {
	in.running(nil)
	err := in.rt.terminate(in.id, proc, grace)
	proc.close()
	if err == nil {
		err = in.rt.destroy(ctx, in.id, in.record.Serves)
	}
	if err != nil {
		in.log.WarnContext(ctx, "managed plugin was not started, and not all of it is gone", slog.String("error", err.Error()))
	}
}

// create makes the bundle and the container of it.
func (in *instance) create(ctx context.Context) (*process, error) {
	r, p := in.rt, &in.plugin
	sockets := r.path(in.id, "s")
	if err := empty(sockets); err != nil {
		return nil, err
	}
	if p.HonorUser {
		if err := os.Chown(sockets, int(p.Config.User.UID), int(p.Config.User.GID)); err != nil {
			return nil, state.Classify(err)
		}
	}
	if p.Config.PropagatedMount != "" {
		if err := mount.Share(p.Propagated); err != nil {
			return nil, err
		}
	}
	if len(p.Command) > 0 {
		return in.createOnHost()
	}
	for _, dir := range p.Shared {
		if err := mount.Share(dir); err != nil {
			return nil, err
		}
	}
	if err := skeleton(p.Rootfs); err != nil {
		return nil, state.Classify(err)
	}
	spec, err := p.Spec(sockets, cgroupOf(in.id))
	if err != nil {
		return nil, err
	}
	if err := checkRights(spec, ownStatus()); err != nil {
		return nil, err
	}
	secrets, err := p.readSecrets()
	if err != nil {
		return nil, err
	}
	// A runc that was killed leaves files in it that the next one does not make anew.
	bundle := r.path(in.id, "bundle")
	if err := removeTree(bundle); err != nil {
		return nil, err
	}
	if err := os.Mkdir(bundle, 0o700); err != nil {
		return nil, state.Classify(err)
	}
	if err := writeBundle(bundle, spec, secrets); err != nil {
		return nil, state.Classify(err)
	}
	if len(secrets) > 0 {
		// runc has read it when the container is there.
		defer func() {
			if err := writeBundle(bundle, spec, nil); err != nil {
				_ = os.Remove(bundle + "/config.json")
			}
		}()
	}
	stdout, stderr, err := in.out.ends()
	if err != nil {
		return nil, state.Classify(err)
	}
	defer stdout.Close()
	defer stderr.Close()
	return r.create(ctx, in.id, stdout, stderr)
}

// empty removes what a plugin left in the directory of its sockets. The directory itself stays, as it is watched.
func empty(dir string) error {
	// A plugin may have mounted something there, whose files are not its own.
	if err := unmountBelow(dir, true); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return state.Classify(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(dir + "/" + e.Name()); err != nil {
			return state.Classify(err)
		}
	}
	return nil
}

// await returns nil when the socket accepts. As with the engine, that it does is all that is asked of it: a managed
// plugin is not activated.
func (in *instance) await(ctx context.Context, proc *process) error {
	limit := in.rt.limits.ready
	timer := time.NewTimer(limit)
	defer timer.Stop()
	pause := time.Millisecond
	for {
		c, err := in.dial(ctx)
		if err == nil {
			return c.Close()
		}
		select {
		case <-proc.exited:
			return in.said(errdefs.Errorf(errdefs.ErrUnavailable, "ended before it listened on %q: %s", in.plugin.Config.Interface.Socket, proc.exit))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			return in.said(errdefs.Errorf(errdefs.ErrUnavailable, "did not listen on %q within %s", in.plugin.Config.Interface.Socket, limit))
		case <-time.After(pause):
			pause = min(pause*3/2, 50*time.Millisecond)
		}
	}
}

// said adds the plugin's last words to an error.
func (in *instance) said(err error) error {
	if words := in.out.last(); words != "" {
		return fmt.Errorf("%w; its last words: %s", err, words)
	}
	return fmt.Errorf("%w; it wrote nothing", err)
}

// supervise keeps the plugin running, in the background. proc is nil where it is yet to be started.
func (in *instance) supervise(ctx context.Context, proc *process) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	in.cancel, in.done = cancel, make(chan struct{})
	go func() {
		defer close(in.done)
		defer cancel()
		if proc == nil {
			proc = in.restart(ctx)
		}
		for proc != nil {
			select {
			case <-ctx.Done():
				return
			case <-proc.exited:
			}
			if ctx.Err() != nil {
				return
			}
			in.ended(ctx, proc)
			proc = in.restart(ctx)
		}
	}()
}

// ended is what is to be done when the plugin has ended by itself.
func (in *instance) ended(ctx context.Context, proc *process) {
	in.hold(ctx)
	exit := proc.exit
	healthy := time.Since(in.record.Since) >= in.rt.limits.healthy
	proc.close()
	in.running(nil)
	in.out.drain()
	in.out.flush()
	in.out.note("ended: " + exit.String())
	if healthy {
		in.record.Restarts = 0
	}
	in.record.Last, in.record.Pid, in.record.Start, in.record.Since = &exit, 0, 0, time.Now()
	if err := in.rt.saveRecord(&in.record); err != nil {
		in.log.WarnContext(ctx, "the state of a managed plugin cannot be kept", slog.String("error", err.Error()))
	}
	wait := in.rt.backOff(in.record.Restarts)
	in.set(func(s *State) {
		s.Status, s.Since, s.Pid, s.Last, s.Error = Restarting, exit.Time, 0, &exit, ""
		s.Restarts, s.Next = in.record.Restarts, time.Now().Add(wait)
	})
	in.log.WarnContext(ctx, "managed plugin ended, and is started again", slog.String("exit", exit.String()),
		slog.Int("restarts", in.record.Restarts), slog.Duration("wait", wait))
	if err := in.rt.destroy(ctx, in.id, in.record.Serves); err != nil {
		in.log.WarnContext(ctx, "managed plugin left something behind", slog.String("error", err.Error()))
	}
}

// hold keeps callers waiting.
func (in *instance) hold(ctx context.Context) {
	if in.holder != nil || in.pub.dir == "" {
		return
	}
	h, err := hold(ctx, in.rt.path(in.id), in.rt.path(in.id, "s", in.plugin.Config.Interface.Socket), in.dial)
	if err == nil {
		if err = in.pub.point(in.rt.path(in.id, holdName)); err != nil {
			h.drop()
		} else {
			in.holder = h
		}
	}
	if err != nil {
		in.log.WarnContext(ctx, "callers of a managed plugin cannot be kept waiting", slog.String("error", err.Error()))
	}
}

// failed is what is to be done when it could not be started again.
func (in *instance) failed(err error) {
	wait := in.rt.backOff(in.record.Restarts)
	since := in.current().Since
	in.set(func(s *State) {
		s.Status, s.Since, s.Pid, s.Error = Restarting, since, 0, err.Error()
		s.Restarts, s.Next = in.record.Restarts, time.Now().Add(wait)
	})
	in.out.note("not started: " + err.Error())
	in.log.Error("managed plugin cannot be started, and is tried again", slog.String("error", err.Error()),
		slog.Int("restarts", in.record.Restarts), slog.Duration("wait", wait))
}

// restart starts the plugin again until it runs, or until ctx ends, when it returns nil.
func (in *instance) restart(ctx context.Context) *process {
	in.hold(ctx)
	for {
		timer := time.NewTimer(in.rt.backOff(in.record.Restarts))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		in.record.Restarts++
		proc, err := in.launch(ctx)
		if err == nil {
			if err = in.publish(); err == nil {
				if in.holder != nil {
					in.holder.release()
					in.holder = nil
				}
				in.log.InfoContext(ctx, "managed plugin runs again", slog.Int("pid", proc.pid), slog.Int("restarts", in.record.Restarts))
				return proc
			}
			in.end(ctx, proc, in.rt.limits.stop)
		}
		if ctx.Err() != nil {
			return nil
		}
		in.failed(err)
	}
}

// backOff is how long to wait before the next start, after so many.
func (r *Runtime) backOff(restarts int) time.Duration {
	wait := r.limits.first
	for range restarts {
		if wait *= 2; wait >= r.limits.last {
			return r.limits.last
		}
	}
	return wait
}
