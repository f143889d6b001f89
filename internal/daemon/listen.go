package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk"
)

// api is a server for people at work, beside those for engines.
type api struct {
	stop context.CancelFunc
	done chan struct{} // closed when it has ended, with err
	err  error
}

// start runs serve until close is called.
func start(ctx context.Context, serve func(context.Context) error) *api {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &api{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.err = serve(ctx)
	}()
	return a
}

// close ends the server. A server that there is not is closed already.
func (a *api) close() error {
	if a == nil {
		return nil
	}
	a.stop()
	<-a.done
	return a.err
}

// serveControl serves the control socket, before the pools, so that it can tell of a
// start that takes long.
func (d *Daemon) serveControl(ctx context.Context) (*api, error) {
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: d.boot.ControlSocket(), Group: d.boot.Control.Group, Mode: 0o660})
	if err != nil {
		return nil, err
	}
	o := control.ServerOptions{
		Volumes:  d.volumes,
		Storage:  d.storage(),
		Daemon:   d,
		Disks:    d.volumes,
		Backups:  d.archive(),
		Projects: d.projects,
		Plugins:  d.plugins,
		Logger:   d.log,
		Pages:    d.pages(),
	}
	if d.network != nil {
		o.Networks = d.network
	}
	s := control.NewServer(o)
	return start(ctx, func(ctx context.Context) error { return s.Serve(ctx, l) }), nil
}

// pageGrace is how long a stop waits for a page that is being read.
const pageGrace = time.Second

// serveMetrics serves the pages, and nothing that changes anything, at an address of the
// network, if there is to be one.
func (d *Daemon) serveMetrics(ctx context.Context) (*api, error) {
	if d.boot.Metrics.Listen == "" {
		return nil, nil
	}
	l, err := sdk.ListenTCP(d.boot.Metrics.Socket())
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for pattern, h := range d.pages() {
		mux.Handle(pattern, h)
	}
	d.log.InfoContext(ctx, "metrics served", slog.String("address", l.Addr().String()))
	return start(ctx, func(ctx context.Context) error {
		return sdk.ServeHandler(ctx, sdk.Options{Logger: d.log, Grace: pageGrace}, mux, l)
	}), nil
}
