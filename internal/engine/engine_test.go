package engine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// answering serves one answer to everything on a socket.
func answering(t *testing.T, status int, text string) Engine {
	t.Helper()
	return serving(t, func(w http.ResponseWriter, r *http.Request) {
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	})
}

func serving(t *testing.T, answer http.HandlerFunc) Engine {
	t.Helper()
	dir, err := os.MkdirTemp("", "rme") // a short path, for the sake of sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: answer}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return Engine{l.Addr().String()}
}

// The list is that of Docker 20.10 for a container with a volume of a plugin, cut down.
func TestContainers(t *testing.T) {
	e := answering(t, 200, `[{"Id":"8dfafdbc3a40aaaaaaaa","Names":["/web"],"State":"running","Mounts":[
		{"Type":"volume","Name":"data","Source":"","Destination":"/data","Driver":"remora","Mode":"z","RW":true},
		{"Type":"bind","Source":"/srv","Destination":"/srv"}]},
		{"Id":"1111222233334444","Names":[],"State":"exited","Mounts":[{"Type":"volume","Name":"x","Driver":"local"}]},
		{"Id":"66667777","Names":["/held"],"State":"paused","Mounts":[{"Type":"volume","Name":"x","Driver":"local"}]},
		{"Id":"5555","Names":["/none"],"State":"exited","Mounts":[]}]`)
	got, err := e.Containers(t.Context())
	want := []Container{
		{ID: "1111222233334444", Name: "111122223333", Volumes: []Volume{{"local", "x"}}},
		{ID: "66667777", Name: "held", Paused: true, Volumes: []Volume{{"local", "x"}}},
		{ID: "8dfafdbc3a40aaaaaaaa", Name: "web", Running: true, Volumes: []Volume{{"remora", "data"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		e     Engine
		class error
		text  string
	}{
		{answering(t, 404, `{"message":"No such image: x"}`), errdefs.ErrNotFound, "No such image: x"},
		{answering(t, 500, `{"cause":"c","message":"boom\nboom","response":500}`), errdefs.ErrUnavailable, "boom"},
		{answering(t, 400, `plain`), errdefs.ErrInvalid, "plain"},
		{answering(t, 409, ``), errdefs.ErrInUse, "409 Conflict"},
		{answering(t, 200, `{`), errdefs.ErrUnavailable, "unexpected EOF"},
		{answering(t, 0, ``), context.DeadlineExceeded, "too late"},
		{Engine{filepath.Join(t.TempDir(), "gone")}, errdefs.ErrUnavailable, "it does not run"},
	} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errdefs.Errorf(context.DeadlineExceeded, "too late"))
		_, err := tt.e.Containers(ctx)
		cancel()
		if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) || !strings.HasPrefix(err.Error(), "engine at "+tt.e.Socket+": ") {
			t.Errorf("error is %v, want %s", err, tt.text)
		}
	}
	for socket, unit := range map[string]string{filepath.Join(t.TempDir(), "gone"): "start docker\"", PodmanSocket: "start podman.socket\""} {
		err := (Engine{socket}).unreached(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
		if hints := errdefs.Hints(err); len(hints) != 1 || !strings.Contains(hints[0], unit) || err.Error() != "it does not run" {
			t.Errorf("error is %v, hints %q", err, hints)
		}
	}
	if got := There([]string{"/none/of/these", os.DevNull}); len(got) != 1 || got[0].Socket != os.DevNull {
		t.Errorf("there are %v", got)
	}
}

// An image that is not there says how to get it.
func TestNoImage(t *testing.T) {
	e := answering(t, 404, `{"message":"No such image: x:1"}`)
	err := e.Run(t.Context(), Check{Name: "c", Image: "x:1", Timeout: time.Second})
	if !errors.Is(err, errdefs.ErrNotFound) || err.Error() != `image "x:1": is not on this host` || !slices.Equal(errdefs.Hints(err), []string{"docker pull x:1"}) {
		t.Errorf("error is %v, hints %q", err, errdefs.Hints(err))
	}
}

// A managed plugin is known to engines with its tag.
func TestHas(t *testing.T) {
	for driver, pools := range map[string]string{
		"remora":                           "remora",
		"remora:latest":                    "remora",
		"remora/ebs:1.2":                   "ebs",
		"remora/ebs":                       "ebs",
		"remora@sha256:0123":               "remora",
		"remora:1.2@sha256:0123":           "remora",
		"vieux/sshfs:latest":               "vieux/sshfs",
		"localhost:5000/other/sshfs":       "localhost:5000/other/sshfs",
		"localhost:5000/other/sshfs:1":     "localhost:5000/other/sshfs",
		"":                                 "remora ebs other",
		"local":                            "local",
		"remora-ebs:latest":                "remora-ebs",
		"docker.io/remora/ebs:1.2@sha256:": "docker.io/remora/ebs",
	} {
		c := Container{Volumes: []Volume{{driver, "data"}}}
		for _, pool := range []string{"remora", "ebs", "other", "local", "vieux/sshfs", "sshfs", "localhost:5000/other/sshfs", "remora-ebs", "docker.io/remora/ebs"} {
			want := driver == "" || slices.Contains(strings.Fields(pools), pool)
			if got := c.Has(pool, "data"); got != want {
				t.Errorf("driver %q is pool %q: %v", driver, pool, got)
			}
			if c.Has(pool, "other") {
				t.Errorf("driver %q: has a volume of another name", driver)
			}
		}
	}
}

// An engine takes the beginning of an ID for the name of a container that has gone: another one is not it.
func TestContainerByName(t *testing.T) {
	e := answering(t, 200, `{"Id":"db0fafdbc3a40aaaaaaaa","Name":"/web","State":{"Running":true}}`)
	for _, name := range []string{"web", "/web", "db0fafdbc3a4", "db0fafdbc3a40aaaaaaaa"} {
		if c, err := e.Container(t.Context(), name); err != nil || c.Name != "web" || !c.Running {
			t.Errorf("%q is %+v, %v", name, c, err)
		}
	}
	if c, err := e.Container(t.Context(), "db"); !errors.Is(err, errdefs.ErrNotFound) || c.ID != "" {
		t.Errorf("db is %+v, %v", c, err)
	}
}
