package control_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What the daemon answers is what the caller gets, for every method.
func TestRoundTrip(t *testing.T) {
	s := full()
	c := newClient(t, serve(t, s))
	v, ctx := c.Volumes(), t.Context()
	type result struct {
		name      string
		got, want any
		sent      any
		err       error
	}
	var all []result
	add := func(name string, got, want, sent any, err error) {
		t.Helper()
		if diff := cmp.Diff(sent, s.got); diff != "" {
			t.Errorf("%s: request (-sent +arrived):\n%s", name, diff)
		}
		all = append(all, result{name, got, want, sent, err})
		s.got = nil
	}
	create := control.VolumeCreateRequest{Pool: "p", Name: "data", Options: map[string]string{"a": "b", "c": ""}}
	one := control.VolumeRequest{Pool: "p", Name: "data"}
	mount := control.VolumeMountRequest{Pool: "p", Name: "data", ID: "2f73"}
	volume, err := v.Create(ctx, create)
	add("create", volume, s.volume, create, err)
	list, err := v.List(ctx, control.VolumeListRequest{Pool: "p"})
	add("list", list, s.list, control.VolumeListRequest{Pool: "p"}, err)
	volume, err = v.Inspect(ctx, one)
	add("inspect", volume, s.volume, one, err)
	remove := control.VolumeRemoveRequest{Pool: "p", Name: "data", Purge: true}
	add("remove", nil, nil, remove, v.Remove(ctx, remove))
	point, err := v.Mount(ctx, mount)
	add("mount", point, s.point, mount, err)
	add("unmount", nil, nil, mount, v.Unmount(ctx, mount))
	point, err = v.Path(ctx, one)
	add("path", point, s.point, one, err)
	status, err := c.Status(ctx)
	add("status", status, s.status, nil, err)
	reload, err := c.Reload(ctx)
	add("reload", reload, s.reload, nil, err)
	var progress []control.Progress
	reconcile, err := c.Reconcile(ctx, func(p control.Progress) { progress = append(progress, p) })
	add("reconcile", reconcile, s.reconcile, nil, err)
	add("progress", progress, s.progress, nil, nil)
	text, ok, err := c.Page(ctx, "/readyz")
	add("page", fmt.Sprint(text, ok), "not yet\nfalse", nil, err)
	st := c.Storage()
	clone := control.VolumeCloneRequest{Pool: "p", Name: "new", From: "data", Snapshot: "s1", Options: map[string]string{"a": "b"}}
	volume, err = st.Clone(ctx, clone)
	add("clone", volume, s.volume, clone, err)
	resize := control.VolumeResizeRequest{Pool: "p", Name: "data", Size: 1, By: 2}
	usage, err := st.Resize(ctx, resize)
	add("resize", usage, s.usage, resize, err)
	rollback := control.VolumeRollbackRequest{Pool: "p", Name: "data", Snapshot: "s1"}
	add("rollback", nil, nil, rollback, st.Rollback(ctx, rollback))
	progress = nil
	usage, err = st.Usage(ctx, one, func(p control.Progress) { progress = append(progress, p) })
	add("usage", usage, s.usage, one, err)
	add("progress of usage", progress, s.progress, nil, nil)
	protect := control.VolumeProtectRequest{Pool: "p", Name: "data", Protected: true}
	add("protect", nil, nil, protect, st.Protect(ctx, protect))
	take := control.SnapshotCreateRequest{Pool: "p", Volume: "data", Name: "s1", Labels: map[string]string{"a": "b"}}
	snapshot, err := st.CreateSnapshot(ctx, take)
	add("snapshot", snapshot, s.snapshots.Snapshots[0], take, err)
	snapshots, err := st.ListSnapshots(ctx, control.SnapshotListRequest{Pool: "p", Volume: "data"})
	add("snapshots", snapshots, s.snapshots, control.SnapshotListRequest{Pool: "p", Volume: "data"}, err)
	drop := control.SnapshotRequest{Pool: "p", Volume: "data", Name: "s1"}
	add("remove snapshot", nil, nil, drop, st.RemoveSnapshot(ctx, drop))
	compare := control.SnapshotDiffRequest{Pool: "p", Volume: "data", From: "s1", To: "s2"}
	var changes []control.Change
	counts, err := st.DiffSnapshot(ctx, compare, func(c control.Change) { changes = append(changes, c) })
	add("diff", counts, s.diff, compare, err)
	add("changes", changes, s.changes, nil, nil)
	trash, err := st.Trash(ctx, control.TrashListRequest{Pool: "p"})
	add("trash", trash, s.trash, control.TrashListRequest{Pool: "p"}, err)
	restore := control.TrashRestoreRequest{Pool: "p", ID: "18a-2f", Name: "data"}
	volume, err = st.Restore(ctx, restore)
	add("restore", volume, s.volume, restore, err)
	purge := control.TrashRequest{Pool: "p", ID: "18a-2f"}
	add("purge", nil, nil, purge, st.Purge(ctx, purge))
	schedules, err := st.Schedules(ctx)
	add("schedules", schedules, s.schedules, nil, err)
	for _, r := range all {
		if diff := cmp.Diff(r.want, r.got); diff != "" || r.err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", r.name, r.err, diff)
		}
	}
}

// An error has the same text, class and hints on both sides.
func TestErrorsCross(t *testing.T) {
	s := &service{}
	c := newClient(t, serve(t, s))
	for _, class := range []error{
		errdefs.ErrNotFound, errdefs.ErrExists, errdefs.ErrInUse, errdefs.ErrInvalid, errdefs.ErrUnsupported,
		errdefs.ErrUnavailable, errdefs.ErrDenied, context.DeadlineExceeded, nil,
	} {
		s.err = errors.New(`volume "data": it is so`)
		if class != nil {
			s.err = errdefs.As(class, s.err)
		}
		s.err = errdefs.Hint(errdefs.Hint(s.err, "inner"), "outer")
		for name, err := range map[string]error{
			"remove":    c.Volumes().Remove(t.Context(), control.VolumeRemoveRequest{Name: "data"}),
			"reconcile": func() error { _, err := c.Reconcile(t.Context(), nil); return err }(),
		} {
			if err == nil || err.Error() != `volume "data": it is so` || errdefs.Name(err) != errdefs.Name(s.err) || errors.Is(err, control.ErrUnreachable) {
				t.Errorf("%s: %v of class %v, want class %v", name, err, errdefs.Class(err), class)
			}
			if diff := cmp.Diff([]string{"outer", "inner"}, errdefs.Hints(err)); diff != "" {
				t.Errorf("%s: hints (-want +got):\n%s", name, diff)
			}
		}
	}
}

func TestNoDaemon(t *testing.T) {
	never := socketPath(t)
	stale := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{never, stale} {
		c := newClient(t, path)
		_, err := c.Status(t.Context())
		if !errors.Is(err, control.ErrUnreachable) || !errors.Is(err, errdefs.ErrUnavailable) || err.Error() != "daemon: nobody listens on "+path {
			t.Errorf("error is %v", err)
		}
		if hints := errdefs.Hints(err); len(hints) != 1 || !strings.Contains(hints[0], "remora daemon") {
			t.Errorf("hints are %q", hints)
		}
		if _, _, err := c.Page(t.Context(), "/readyz"); !errors.Is(err, control.ErrUnreachable) {
			t.Errorf("page: %v", err)
		}
	}
}

// A daemon that dies while it is sent something has gone away too.
func TestDaemonGoneWhileItReads(t *testing.T) {
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 64))
			_ = conn.Close()
		}
	}()
	_, err = newClient(t, socket).Plugins().Create(t.Context(), "demo", io.LimitReader(rand.Reader, 64<<20))
	if !errors.Is(err, control.ErrUnreachable) || err.Error() != "daemon: went away before it answered" || len(errdefs.Hints(err)) != 1 {
		t.Errorf("%v, hints %q", err, errdefs.Hints(err))
	}
}

// A daemon that dies in the middle, or is none, is told from one that says no.
func TestBrokenDaemon(t *testing.T) {
	for _, tt := range []struct{ name, answer, want string }{
		{"hangs up", "", "daemon: went away before it answered"},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n", "daemon: "},
		{"no JSON", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "daemon: answer to Daemon.Status: "},
		{"cut off", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"Version\"", "daemon: answer to Daemon.Status: "},
		{"another's error", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nhm", "daemon: answers 502 Bad Gateway to Daemon.Status"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := socketPath(t)
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 4096)) // the request
					_, _ = conn.Write([]byte(tt.answer))
					_ = conn.Close()
				}
			}()
			_, err = newClient(t, socket).Status(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "http://") {
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

func TestStreamBreaksOff(t *testing.T) {
	s := full()
	s.panics = true
	_, err := newClient(t, serve(t, s)).Reconcile(t.Context(), func(control.Progress) {})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "daemon: answer breaks off") {
		t.Errorf("error is %v", err)
	}
}

func TestCallerGivesUp(t *testing.T) {
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it listens, and never answers
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newClient(t, socket).Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, control.ErrUnreachable) {
		t.Errorf("error is %v", err)
	}
}

// A socket that the caller may not use is not a daemon that is not there.
func TestDenied(t *testing.T) {
	socket := serve(t, full())
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // to root nothing is denied: be somebody else for a moment
		if err := syscall.Setresuid(-1, 65534, 0); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setresuid(-1, 0, -1); err != nil {
				t.Fatal(err)
			}
		}()
	}
	_, err := newClient(t, socket).Status(t.Context())
	if !errors.Is(err, errdefs.ErrDenied) || errors.Is(err, control.ErrUnreachable) || len(errdefs.Hints(err)) != 1 {
		t.Errorf("error is %v", err)
	}
}

func TestResolvePool(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pools []string
		want  string
		class error
		text  string
	}{
		{"", []string{"fast", "remora"}, "remora", nil, ""},
		{"", []string{"fast"}, "fast", nil, ""},
		{"fast", []string{"fast", "remora"}, "fast", nil, ""},
		{"", []string{"slow", "fast"}, "", errdefs.ErrInvalid, "no pool named, and there is more than one: fast, slow"},
		{"fats", []string{"slow", "fast"}, "", errdefs.ErrNotFound, `pool "fats": not found, there are: fast, slow`},
		{"", nil, "", errdefs.ErrNotFound, `pool "": not found, there are no pools`},
	} {
		got, err := control.ResolvePool(tt.name, tt.pools)
		if got != tt.want || !errors.Is(err, tt.class) || err != nil && err.Error() != tt.text {
			t.Errorf("%q among %q is %q, %v (%s)", tt.name, tt.pools, got, err, errdefs.Name(err))
		}
	}
}
