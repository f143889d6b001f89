package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// DefaultGrace is how long a [Server] waits for calls in flight when it is stopped:
// a little less than the 10 seconds after which an engine kills a managed plugin.
const DefaultGrace = 9 * time.Second

// Options of a [Server]. The zero value is ready to use.
type Options struct {
	// Logger is told of connections that go wrong; nil is silent.
	Logger *slog.Logger
	// Grace bounds how long Serve waits for calls in flight once its context has
	// ended; 0 is DefaultGrace, negative does not wait.
	Grace time.Duration
}

// Server answers an engine's calls for one or more plugins. Make it with [New].
type Server struct {
	options Options
	plugins []Plugin
	mux     *http.ServeMux
}

// New puts plugins on a server. It panics when two of them implement the same kind,
// which is a mistake in the program.
func New(o Options, plugins ...Plugin) *Server {
	s := &Server{options: o, plugins: plugins, mux: http.NewServeMux()}
	for _, p := range plugins {
		for method, h := range p.Methods() {
			s.mux.Handle("/"+method, h)
		}
	}
	s.mux.HandleFunc("/"+wire.ActivateMethod, s.activate)
	s.mux.HandleFunc("/", unknown)
	return s
}

// ServeHTTP answers one call. It lets a Server stand in a test or behind a server of
// your own; Host, Accept and Content-Type of the request are not looked at, since
// engines disagree on all three.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mux.ServeHTTP(w, r)
}

// Implements returns the kinds that the server answers for, in the order given to New.
func (s *Server) Implements() []string {
	kinds := make([]string, 0, len(s.plugins))
	for _, p := range s.plugins {
		kinds = append(kinds, p.Implements())
	}
	return kinds
}

func (s *Server) activate(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		reply(w, http.StatusMethodNotAllowed, wire.Error{Err: wire.ActivateMethod + ": use POST"})
		return
	}
	for _, p := range s.plugins {
		if a, ok := p.(Activator); ok {
			a.Activated(r.Context())
		}
	}
	reply(w, http.StatusOK, wire.ActivateResponse{Implements: s.Implements()})
}

// unknown answers for methods that no plugin here has. Engines take status 404 for
// "not implemented", and go on without the method where they can.
func unknown(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusNotFound, wire.Error{Err: fmt.Sprintf("%.100q: this plugin has no such method", r.URL.Path)})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", wire.MediaType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller is gone: nobody is left to tell
}

// Serve answers calls on the listeners until ctx ends, then takes no more, waits for
// those in flight at most [Options.Grace], and returns nil. It closes the listeners.
// An error means that a listener failed, or that calls were still running when the
// grace was over.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	return ServeHandler(ctx, s.options, s, listeners...)
}

// Serve makes a server of plugins and serves them on l until ctx ends, as
// [Server.Serve] does. It is all that a plugin's main needs.
func Serve(ctx context.Context, l net.Listener, plugins ...Plugin) error {
	return New(Options{}, slices.Clone(plugins)...).Serve(ctx, l)
}
