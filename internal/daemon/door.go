package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk"
)

// door is the socket of a pool and the server at it. It stays open while one pool takes
// the place of another behind it: an engine that calls meanwhile waits, and sees no error.
//
// A door that systemd keeps outlives its pools: engines get in for as long as systemd has
// the socket, and would wait for ever where nobody answered them.
type door struct {
	listener net.Listener
	addr     string
	name     string                    // what systemd calls a door that it keeps
	kept     bool                      // by systemd
	taken    bool                      // by a pool, for one that is kept; under Daemon.mu
	behind   atomic.Pointer[pool.Pool] // nil while there is none
	ending   atomic.Bool               // the daemon stops
	stop     context.CancelFunc        // nil before it is opened
	served   chan struct{}             // closed when the server has ended, with err
	err      error
}

// inherit takes over the sockets that systemd keeps. Nobody is let in yet.
func (d *Daemon) inherit() error {
	all, err := sdk.SystemdListeners()
	if err != nil {
		return err
	}
	for _, l := range all {
		d.kept = append(d.kept, &door{
			listener: l.Listener, addr: l.Addr().String(), name: l.Name, kept: true, served: make(chan struct{}),
		})
	}
	return nil
}

// fits tells whether a door that systemd keeps is meant for a pool.
func (d *Daemon) fits(at *door, pool string) bool {
	return at.name == pool || at.addr == d.socketPath(pool)
}

func (d *Daemon) socketPath(pool string) string { return filepath.Join(d.boot.PluginDir, pool+".sock") }

// openSpare opens the doors that systemd keeps and that are meant for none of pools.
func (d *Daemon) openSpare(ctx context.Context, pools []config.Pool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, at := range d.kept {
		if at.stop != nil || at.taken || slices.ContainsFunc(pools, func(p config.Pool) bool { return d.fits(at, p.Name) }) {
			continue
		}
		d.log.WarnContext(ctx, "systemd passed a socket for which there is no pool", slog.String("name", at.name),
			slog.String("socket", at.addr))
		d.open(ctx, at)
	}
}

// openDoor puts a pool behind the door that systemd keeps for it, or else behind a new one.
func (d *Daemon) openDoor(ctx context.Context, p *pool.Pool) error {
	at := d.take(p.Conf.Name)
	if at == nil {
		if err := d.giveWay(p.Conf.Name); err != nil {
			return err
		}
		l, err := sdk.ListenUnix(sdk.UnixSocket{Path: d.socketPath(p.Conf.Name), Group: d.boot.Socket.Group, Mode: d.boot.Socket.Mode})
		if err != nil {
			return err
		}
		at = &door{listener: l, addr: l.Addr().String(), served: make(chan struct{})}
	}
	at.behind.Store(p)
	d.mu.Lock()
	d.doors[p.Name()] = at
	d.mu.Unlock()
	if at.stop == nil {
		d.open(ctx, at)
	}
	return nil
}

// take returns the door that systemd keeps for a pool, nil if there is none.
func (d *Daemon) take(pool string) *door {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range d.kept {
		if !at.taken && d.fits(at, pool) {
			at.taken = true
			return at
		}
	}
	return nil
}

// giveBack forgets the door of a pool, which is free for the next one if systemd keeps it.
func (d *Daemon) giveBack(name string, at *door) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at.taken = false
	delete(d.doors, name)
}

// open serves a door.
func (d *Daemon) open(ctx context.Context, at *door) {
	ctx, at.stop = context.WithCancel(context.WithoutCancel(ctx))
	options := sdk.Options{Logger: d.log.With(slog.String("socket", at.addr)), Grace: orNone(d.boot.ShutdownTimeout)}
	go func() {
		defer close(at.served)
		at.err = sdk.ServeHandler(ctx, options, at, at.listener)
	}()
}

// doorOf returns the door of the pool of a name, nil if that is none any more.
func (d *Daemon) doorOf(name string) *door {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.doors[name]
}

// reachable returns what the last look at a pool came to, or that the socket is not served any more.
func (d *Daemon) reachable(p *pool.Pool) error {
	if at := d.doorOf(p.Name()); at != nil {
		select {
		case <-at.served:
			if at.err != nil {
				return at.err
			}
		default:
		}
	}
	return p.Reachable()
}

// end lets nobody in any more.
func (d *door) end() {
	d.ending.Store(true)
	if d.stop != nil {
		d.stop()
	}
}

// close takes no more calls, waits for those in flight, and removes the socket, unless it
// is systemd's.
func (d *door) close(ctx context.Context) error {
	d.end()
	if d.stop == nil {
		return d.listener.Close()
	}
	select {
	case <-d.served: // the server has a limit of its own
		return d.err
	case <-ctx.Done():
		return fmt.Errorf("socket %q: calls still running: %w", d.addr, context.Cause(ctx))
	}
}

// ServeHTTP has the pool answer that is behind the door at the time of the call.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := d.enter(r.Context()); p != nil {
		defer p.Leave()
		p.ServeHTTP(w, r)
		return
	}
	// To an engine an error from Get means that the volume is gone, and it forgets what it
	// knew of it. Where nothing is answered it asks again later.
	if !d.kept || d.ending.Load() || r.Context().Err() != nil || r.URL.Path == "/VolumeDriver.Get" {
		panic(http.ErrAbortHandler)
	}
	// An activation is refused as well: an engine asks again when the plugin is wanted,
	// whereas an answer, even one of no kind of plugin, it keeps for its life.
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	text := fmt.Sprintf("socket %q: the daemon's configuration has no pool for it", d.addr)
	_ = json.NewEncoder(w).Encode(map[string]string{"Err": text}) // the caller is gone: nobody is left to tell
}

// enter returns the pool behind the door, and keeps it from being closed until its leave
// is called. While the pool is changed it waits. It is nil when there is none any more.
func (d *door) enter(ctx context.Context) *pool.Pool {
	for {
		p := d.behind.Load()
		if p == nil || p.Enter() {
			return p
		}
		select {
		case <-p.Replaced():
		case <-ctx.Done():
			return nil
		}
	}
}
