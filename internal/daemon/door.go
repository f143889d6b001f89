package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/remora-plugins/remora/sdk"
)

// door is the socket of a pool and the server at it. It stays open while one pool takes
// the place of another behind it: an engine that calls meanwhile waits, and sees no error.
type door struct {
	addr   string
	behind atomic.Pointer[pool] // nil once there is none any more
	stop   context.CancelFunc
	served chan struct{} // closed when the server has ended, with err
	err    error
}

// openDoor opens the socket of a pool, and serves the pool there.
func (d *Daemon) openDoor(ctx context.Context, p *pool) error {
	listener, err := d.listen(p.conf.Name)
	if err != nil {
		return err
	}
	at := &door{addr: listener.Addr().String(), served: make(chan struct{})}
	at.put(p)
	ctx, at.stop = context.WithCancel(context.WithoutCancel(ctx))
	log := d.log.With(slog.String("pool", p.conf.Name))
	server := sdk.New(sdk.Options{Logger: log, Grace: orNone(d.boot.ShutdownTimeout)}, at)
	go func() {
		defer close(at.served)
		at.err = server.Serve(ctx, listener)
	}()
	return nil
}

// put puts a pool behind the door.
func (d *door) put(p *pool) {
	p.door = d
	d.behind.Store(p)
}

// close takes no more calls, waits for those in flight, and removes the socket, unless it
// is systemd's.
func (d *door) close() error {
	d.stop()
	<-d.served // the server has a limit of its own
	return d.err
}

// Implements implements [sdk.Plugin].
func (d *door) Implements() string { return d.behind.Load().handler.Implements() }

// Methods implements [sdk.Plugin] by the methods of the pool that is behind the door at
// the time of the call.
func (d *door) Methods() map[string]http.Handler {
	methods := map[string]http.Handler{}
	for name := range d.behind.Load().methods {
		methods[name] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p := d.enter(r.Context())
			if p == nil {
				panic(http.ErrAbortHandler) // no answer is one that an engine does not take for "gone"
			}
			defer p.leave()
			p.methods[name].ServeHTTP(w, r)
		})
	}
	return methods
}

// Activated implements [sdk.Activator].
func (d *door) Activated(ctx context.Context) {
	if p := d.enter(ctx); p != nil {
		defer p.leave()
		p.handler.Activated(ctx)
	}
}

// enter returns the pool behind the door, and keeps it from being closed until its leave
// is called. While the pool is changed it waits. It is nil when there is none any more.
func (d *door) enter(ctx context.Context) *pool {
	for {
		p := d.behind.Load()
		if p == nil || p.enter() {
			return p
		}
		select {
		case <-p.replaced:
		case <-ctx.Done():
			return nil
		}
	}
}

// listen returns the socket that systemd keeps for a pool, or else makes one.
func (d *Daemon) listen(name string) (net.Listener, error) {
	path := filepath.Join(d.boot.PluginDir, name+".sock")
	i := slices.IndexFunc(d.inherited, func(l sdk.ActivatedListener) bool {
		return l.Name == name || l.Addr().String() == path
	})
	if i < 0 {
		return sdk.ListenUnix(sdk.UnixSocket{Path: path, Group: d.boot.Socket.Group, Mode: d.boot.Socket.Mode})
	}
	l := d.inherited[i].Listener
	d.inherited = slices.Delete(d.inherited, i, i+1)
	return l, nil
}
