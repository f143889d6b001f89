// Package engineapi answers an engine's own HTTP API for plugins and volumes, so that the docker command drives
// Remora where there is no dockerd:
//
//	docker -H unix:///run/remora/engine.sock plugin install …
//
// Of the API of version 1.41 it has /_ping, /version, /info, /events, and every route of /plugins and /volumes.
// Statuses, texts and streams are those of dockerd 20.10. It has no containers, images and networks, and says so.
package engineapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/managed"
	"github.com/remora-plugins/remora/internal/managed/volumes"
	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The versions of the API that are spoken.
const (
	Version    = "1.41"
	minVersion = "1.12"
)

// Options is what a [Server] is made of.
type Options struct {
	Plugins *managed.Manager
	Volumes *volumes.Service
	// Remora is the version of this program.
	Remora string
	// Root is where plugins lie.
	Root string
	// Drivers returns the names of the volume drivers beside the managed plugins.
	Drivers func() []string
	// Life ends what would go on for as long as its caller listens.
	Life context.Context //nolint:containedctx // that of the daemon
	Log  *slog.Logger
}

// Server answers the API.
type Server struct {
	Options
	started time.Time
}

// New returns a server.
func New(o Options) *Server { return &Server{Options: o, started: time.Now()} }

// grace is how long a stop waits for requests in flight.
const grace = 5 * time.Second

// Serve answers on l until ctx ends, and closes it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := sdk.ServeHandler(ctx, sdk.Options{Logger: s.Log, Grace: grace}, s, l); err != nil {
		return fmt.Errorf("engine socket: %w", err)
	}
	return nil
}

// versioned is the prefix that a client may put before any path.
var versioned = regexp.MustCompile(`^/v([0-9]+)\.([0-9]+)(/.*)$`)

// ServeHTTP answers one request. Names have slashes in them, so that no [http.ServeMux] can route.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Api-Version", Version)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", "linux")
	h.Set("Server", "Remora/"+s.Remora+" (linux)")
	defer s.recovered(r.Context(), w, r.URL.Path)
	path := r.URL.Path
	if m := versioned.FindStringSubmatch(path); m != nil {
		if err := supported(m[1], m[2]); err != nil {
			fail(w, err)
			return
		}
		path = m[3]
	}
	if err := s.route(w, r, path); err != nil {
		fail(w, err)
	}
}

func (s *Server) recovered(ctx context.Context, w http.ResponseWriter, path string) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.Log.ErrorContext(ctx, "panic", slog.String("path", path), slog.String("panic", errdefs.Recovered(p)), slog.String("stack", string(debug.Stack())))
	fail(w, fmt.Errorf("%.100q: internal error: the daemon panicked, its log says where", path))
}

func supported(major, minor string) error {
	asked := major + "." + minor
	switch {
	case less(Version, major, minor):
		return errdefs.Errorf(errdefs.ErrInvalid, "client version %s is too new. Maximum supported API version is %s", asked, Version)
	case !less(minVersion, major, minor) && asked != minVersion:
		return errdefs.Errorf(errdefs.ErrInvalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", asked, minVersion)
	}
	return nil
}

// less tells whether a version is below one of two numbers.
func less(version, major, minor string) bool {
	a, b, _ := strings.Cut(version, ".")
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 1 << 30 // more digits than any version has
		}
		return n
	}
	return number(a) < number(major) || number(a) == number(major) && number(b) < number(minor)
}

// route finds who answers a path.
func (s *Server) route(w http.ResponseWriter, r *http.Request, path string) error {
	switch path {
	case "/_ping":
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return ping(w, r)
		}
	case "/version":
		if r.Method == http.MethodGet {
			return answer(w, http.StatusOK, s.version())
		}
	case "/info":
		if r.Method == http.MethodGet {
			return answer(w, http.StatusOK, s.info(r.Context()))
		}
	case "/events":
		if r.Method == http.MethodGet {
			return s.events(w, r)
		}
	}
	if path == "/plugins" || strings.HasPrefix(path, "/plugins/") {
		return s.plugins(w, r, strings.TrimPrefix(strings.TrimPrefix(path, "/plugins"), "/"))
	}
	if path == "/volumes" || strings.HasPrefix(path, "/volumes/") {
		return s.volumes(w, r, strings.TrimPrefix(strings.TrimPrefix(path, "/volumes"), "/"))
	}
	return absent(r.Method, path)
}

func ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return ignored(err)
}

// ignored is the fate of an error of writing an answer: nobody is left to tell.
func ignored(error) error { return nil }

// absent answers for what there is in an engine and not here. "docker inspect" asks for a name among all kinds of
// objects, and goes on where there is none of it.
func absent(method, path string) error {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	name := strings.Join(parts[1:], "/")
	one, isOne := strings.CutSuffix(name, "/json")
	switch {
	case method != http.MethodGet:
	case isOne && parts[0] == "containers":
		return errdefs.Errorf(errdefs.ErrNotFound, "No such container: %s", one)
	case isOne && parts[0] == "images":
		return errdefs.Errorf(errdefs.ErrNotFound, "No such image: %s", one)
	case name != "" && parts[0] == "networks":
		return errdefs.Errorf(errdefs.ErrNotFound, "network %s not found", name)
	}
	switch parts[0] {
	case "containers", "images", "networks", "build", "exec", "swarm", "services", "nodes", "tasks", "secrets", "configs", "system", "distribution", "session", "grpc":
		return errdefs.Errorf(errdefs.ErrUnsupported, "remora runs plugins and volumes alone: it has no %s", parts[0])
	}
	return errdefs.Errorf(errdefs.ErrNotFound, "page not found")
}

// statusError is an error whose status is not that of its class.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error { return e.error }

// withStatus gives an error the status that dockerd has for it.
func withStatus(status int, err error) error {
	if err == nil {
		return nil
	}
	return statusError{err, status}
}

func statusOf(err error) int {
	if e, ok := errors.AsType[statusError](err); ok {
		return e.status
	}
	switch errdefs.Class(err) {
	case errdefs.ErrNotFound: //nolint:errorlint // Class returns the class itself
		return http.StatusNotFound
	case errdefs.ErrExists, errdefs.ErrInUse:
		return http.StatusConflict
	case errdefs.ErrInvalid:
		return http.StatusBadRequest
	case errdefs.ErrUnsupported:
		return http.StatusNotImplemented
	case errdefs.ErrUnavailable:
		return http.StatusServiceUnavailable
	case errdefs.ErrDenied:
		return http.StatusForbidden
	}
	return http.StatusInternalServerError
}

// text is an error on one line. Its hints are about Remora's own commands, and not the docker command's.
func text(err error) string { return errdefs.OneLine(err.Error()) }

func fail(w http.ResponseWriter, err error) {
	_ = answer(w, statusOf(err), map[string]string{"message": text(err)}) // it always returns nil
}

func answer(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return ignored(json.NewEncoder(w).Encode(v))
}
