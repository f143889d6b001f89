package plugins

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/managed/runtime"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// running returns a plugin that is enabled.
func (s *Service) running(name string) (plugin.Plugin, error) {
	if s.err != nil {
		return plugin.Plugin{}, s.err
	}
	p, err := s.manager.Inspect(name)
	if err == nil && !p.Enabled {
		err = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "plugin %q: does not run: it is disabled", p.Name), "remora plugin enable "+p.Name)
	}
	return p, err
}

// Top implements [control.Plugins].
func (s *Service) Top(ctx context.Context, req control.PluginRequest) (control.PluginTop, error) {
	p, err := s.running(req.Name)
	if err != nil {
		return control.PluginTop{}, err
	}
	top, err := s.manager.Runtime().Top(ctx, p.ID)
	return control.PluginTop{Titles: top.Titles, Processes: top.Rows}, err
}

// Logs implements [control.Plugins].
func (s *Service) Logs(ctx context.Context, req control.PluginLogsRequest, send func(control.PluginLine)) error {
	if s.err != nil {
		return s.err
	}
	p, err := s.manager.Inspect(req.Name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.o.Life, cancel)() //nolint:contextcheck // it ends with either
	for line, err := range s.manager.Runtime().Logs(ctx, p.ID, req.Tail, req.Follow) {
		if err != nil {
			return err
		}
		send(control.PluginLine(line))
	}
	return nil
}

// Exec implements [control.Plugins]. A caller who goes takes the command with it.
func (s *Service) Exec(ctx context.Context, req control.PluginExecRequest, stdin io.Reader, send func(control.PluginOutput)) (control.PluginExit, error) {
	p, err := s.running(req.Name)
	if err != nil {
		return control.PluginExit{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.o.Life, func() { cancel(errStopping) })() //nolint:contextcheck // it ends with either
	var mu sync.Mutex
	out := func(to func([]byte) control.PluginOutput) io.Writer {
		return writer(func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			send(to(slices.Clone(b)))
		})
	}
	status, err := s.manager.Runtime().Exec(ctx, p.ID, req.Command, runtime.Stdio{
		In:  &input{stdin, cancel},
		Out: out(func(b []byte) control.PluginOutput { return control.PluginOutput{Stdout: b} }),
		Err: out(func(b []byte) control.PluginOutput { return control.PluginOutput{Stderr: b} }),
	})
	return control.PluginExit{Status: status}, err
}

var errStopping = errdefs.Errorf(errdefs.ErrUnavailable, "the daemon stops")

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

// input is what a command reads. Where it breaks off its caller is gone.
type input struct {
	from io.Reader
	gone context.CancelCauseFunc
}

func (i *input) Read(b []byte) (int, error) {
	n, err := i.from.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		i.gone(context.Canceled)
	}
	return n, err
}
