package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// ServeHandler serves any HTTP handler as [Server.Serve] serves plugins, for a program
// that has a socket of its own beside them.
func ServeHandler(ctx context.Context, o Options, h http.Handler, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("serve: no listener given")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	var silent silentConns
	hs := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnState:         silent.track,
	}
	var wg sync.WaitGroup
	errs := make([]error, len(listeners))
	failed := make(chan struct{}, len(listeners))
	for i, l := range listeners {
		wg.Go(func() {
			if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				errs[i] = fmt.Errorf("serve %s: %w", l.Addr(), err)
				failed <- struct{}{}
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-failed:
	}
	stopErr := stop(ctx, hs, o.Grace, &silent)
	wg.Wait()
	return errors.Join(append(errs, stopErr)...)
}

// stop ends hs gently, and hard when the grace is over.
func stop(ctx context.Context, hs *http.Server, grace time.Duration, silent *silentConns) error {
	if grace < 0 {
		return hs.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	waiting := time.AfterFunc(silence, silent.close)
	defer waiting.Stop()
	if err := hs.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop: calls still running after %s: %w", grace, err), hs.Close())
	}
	return nil
}

// silence is how long a stop waits for a connection on which nothing was asked yet. HTTP
// clients leave such behind, and [http.Server] would wait five seconds for each.
const silence = 100 * time.Millisecond

// silentConns are the connections of a server on which nothing was asked yet. The zero
// value is ready.
type silentConns struct {
	mu  sync.Mutex
	all map[net.Conn]bool
}

// track is told of each change of a connection.
func (s *silentConns) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.all, c)
		return
	}
	if s.all == nil {
		s.all = map[net.Conn]bool{}
	}
	s.all[c] = true
}

func (s *silentConns) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		_ = c.Close() // nobody has asked anything on it
	}
}
