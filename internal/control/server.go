package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// maxBody bounds a request in bytes. The largest is a volume with its options.
const maxBody = 1 << 20

// ServerOptions is what a [Server] is made of.
type ServerOptions struct {
	Volumes Volumes
	Storage Storage
	Daemon  Daemon
	// Backups, if it is not nil, answers the methods about them.
	Backups Backups
	// Projects, if it is not nil, answers the methods about them.
	Projects Projects
	// Disks, if it is not nil, answers the methods about disks and jobs.
	Disks Disks
	// Plugins, if it is not nil, answers the methods about managed plugins.
	Plugins Plugins
	// Networks, if it is not nil, answers the methods about the network across hosts.
	Networks Networks
	// Pages are served as they are, by their patterns, such as "GET /metrics".
	Pages map[string]http.Handler
	// Logger is told of connections that go wrong; nil is silent.
	Logger *slog.Logger
}

// Server answers the control API.
type Server struct {
	mux *http.ServeMux
	log *slog.Logger
}

// NewServer makes a server of o.
func NewServer(o ServerOptions) *Server {
	s := &Server{mux: http.NewServeMux(), log: o.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	v, d := o.Volumes, o.Daemon
	handle(s, MethodVolumeCreate, v.Create)
	handle(s, MethodVolumeList, func(ctx context.Context, r VolumeListRequest) (VolumeList, error) {
		all, err := v.List(ctx, r)
		if all == nil {
			all = []Volume{}
		}
		return VolumeList{all}, err
	})
	handle(s, MethodVolumeInspect, v.Inspect)
	handle(s, MethodVolumeRemove, func(ctx context.Context, r VolumeRemoveRequest) (struct{}, error) {
		return struct{}{}, v.Remove(ctx, r)
	})
	handle(s, MethodVolumeMount, func(ctx context.Context, r VolumeMountRequest) (Mountpoint, error) {
		p, err := v.Mount(ctx, r)
		return Mountpoint{p}, err
	})
	handle(s, MethodVolumeUnmount, func(ctx context.Context, r VolumeMountRequest) (struct{}, error) {
		return struct{}{}, v.Unmount(ctx, r)
	})
	handle(s, MethodVolumePath, func(ctx context.Context, r VolumeRequest) (Mountpoint, error) {
		p, err := v.Path(ctx, r)
		return Mountpoint{p}, err
	})
	handle(s, MethodStatus, func(ctx context.Context, _ struct{}) (Status, error) { return d.Status(ctx) })
	handle(s, MethodReload, func(ctx context.Context, _ struct{}) (Reload, error) { return d.Reload(ctx) })
	stream(s, MethodReconcile, func(ctx context.Context, _ struct{}, send func(line)) (Reconcile, error) {
		return d.Reconcile(ctx, sendProgress(send))
	})
	handleStorage(s, o.Storage)
	if o.Backups != nil {
		handleBackups(s, o.Backups)
	}
	if o.Projects != nil {
		handleProjects(s, o.Projects)
	}
	if o.Disks != nil {
		handleDisks(s, o.Disks)
	}
	if o.Plugins != nil {
		handlePlugins(s, o.Plugins)
	}
	if o.Networks != nil {
		handleNetworks(s, o.Networks)
	}
	for pattern, h := range o.Pages {
		s.mux.Handle(pattern, h)
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, errdefs.Errorf(errdefs.ErrUnsupported, "%s %.100q: the daemon has no such method", r.Method, r.URL.Path))
	})
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// grace is how long a stop waits for requests in flight.
const grace = 5 * time.Second

// Serve answers on l until ctx ends, and closes it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := sdk.ServeHandler(ctx, sdk.Options{Logger: s.log, Grace: grace}, s, l); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// handleStorage adds the methods of [Storage].
func handleStorage(s *Server, st Storage) {
	handle(s, MethodVolumeClone, st.Clone)
	handle(s, MethodVolumeResize, st.Resize)
	handle(s, MethodVolumeRollback, nothing(st.Rollback))
	stream(s, MethodVolumeUsage, func(ctx context.Context, r VolumeRequest, send func(line)) (Usage, error) {
		return st.Usage(ctx, r, sendProgress(send))
	})
	handle(s, MethodVolumeProtect, nothing(st.Protect))
	handle(s, MethodSnapshotCreate, st.CreateSnapshot)
	handle(s, MethodSnapshotList, func(ctx context.Context, r SnapshotListRequest) (SnapshotList, error) {
		l, err := st.ListSnapshots(ctx, r)
		if l.Snapshots == nil {
			l.Snapshots = []Snapshot{}
		}
		return l, err
	})
	handle(s, MethodSnapshotRemove, nothing(st.RemoveSnapshot))
	stream(s, MethodSnapshotDiff, func(ctx context.Context, r SnapshotDiffRequest, send func(line)) (Diff, error) {
		return st.DiffSnapshot(ctx, r, func(c Change) { send(line{Change: &c}) })
	})
	handle(s, MethodTrashList, func(ctx context.Context, r TrashListRequest) (TrashList, error) {
		l, err := st.Trash(ctx, r)
		if l.Trashed == nil {
			l.Trashed = []Trashed{}
		}
		return l, err
	})
	handle(s, MethodTrashRestore, st.Restore)
	handle(s, MethodTrashPurge, nothing(st.Purge))
	handle(s, MethodScheduleList, func(ctx context.Context, _ struct{}) (ScheduleList, error) {
		l, err := st.Schedules(ctx)
		if l.Schedules == nil {
			l.Schedules = []Schedule{}
		}
		return l, err
	})
}

// nothing makes a call whose answer is an empty object.
func nothing[Req any](call func(context.Context, Req) error) func(context.Context, Req) (struct{}, error) {
	return func(ctx context.Context, r Req) (struct{}, error) { return struct{}{}, call(ctx, r) }
}

// handle adds a method of one request and one answer.
func handle[Req, Resp any](s *Server, method string, call func(context.Context, Req) (Resp, error)) {
	s.method(method, func(w http.ResponseWriter, r *http.Request) error {
		var req Req
		if err := read(w, r, &req); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		resp, err := call(r.Context(), req)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(resp) // the caller is gone: nobody is left to tell
		return nil
	})
}

// method adds a method, whose errors are answered unless it has begun to answer itself.
func (s *Server) method(name string, serve func(w http.ResponseWriter, r *http.Request) error) {
	s.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		defer s.answerPanic(r.Context(), w, name)
		if err := serve(w, r); err != nil {
			fail(w, err)
		}
	})
	s.mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		answer(w, http.StatusMethodNotAllowed, errdefs.Errorf(errdefs.ErrInvalid, "%s: use POST, not %.20q", name, r.Method))
	})
}

// answerPanic, deferred, makes an error of a panic.
func (s *Server) answerPanic(ctx context.Context, w http.ResponseWriter, method string) {
	if p := recover(); p != nil {
		s.log.ErrorContext(ctx, "panic", slog.String("method", method), slog.String("panic", errdefs.Recovered(p)), slog.String("stack", string(debug.Stack())))
		fail(w, fmt.Errorf("%s: internal error: the daemon panicked, its log says where", method))
	}
}

// bodyTime bounds how long a caller may take to send its request.
const bodyTime = 30 * time.Second

// read decodes the one JSON object of a request; an empty body is an empty object.
func read(w http.ResponseWriter, r *http.Request, req any) error {
	// A recorder in a test has no deadlines; then there is no slow caller either.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return errdefs.Errorf(errdefs.ErrInvalid, "request is larger than %d bytes", maxBody)
	}
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "read request: %w", err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // as above
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(req); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "request is not the JSON of this method: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errdefs.Errorf(errdefs.ErrInvalid, "request has more behind its JSON object")
	}
	return nil
}

func toError(err error) Error {
	return Error{Error: errdefs.OneLine(err.Error()), Class: errdefs.Name(err), Hints: errdefs.Hints(err)}
}

// fail answers with the status of the error's class.
func fail(w http.ResponseWriter, err error) { answer(w, statusOf(err), err) }

func answer(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(toError(err)) // the caller is gone: nobody is left to tell
}

func statusOf(err error) int {
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
	case context.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
