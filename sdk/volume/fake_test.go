package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// fake is a driver whose volumes are names in memory, all mounted at the same directory.
type fake struct {
	dir string
	// before runs ahead of every call, and its error is the call's.
	before func(ctx context.Context, verb, name string) error

	mu      sync.Mutex
	volumes map[string]bool
	log     []string
	closed  int
}

func newFake(dir string, names ...string) *fake {
	f := &fake{dir: dir, volumes: map[string]bool{}}
	for _, name := range names {
		f.volumes[name] = true
	}
	return f
}

func (f *fake) call(ctx context.Context, verb, name string) error {
	f.mu.Lock()
	f.log = append(f.log, strings.TrimSpace(verb+" "+name))
	before := f.before
	f.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, verb, name)
}

func (f *fake) setBefore(before func(ctx context.Context, verb, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// calls returns what was called, of one verb or of all.
func (f *fake) calls(verb string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.log), func(s string) bool { return verb != "" && !strings.HasPrefix(s, verb) })
}

func (f *fake) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.volumes[name]
}

func (f *fake) Create(ctx context.Context, name string, _ map[string]string) error {
	if err := f.call(ctx, "create", name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes[name] = true
	return nil
}

func (f *fake) Remove(ctx context.Context, name string) error {
	if err := f.call(ctx, "remove", name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.volumes[name] {
		return errdefs.Errorf(errdefs.ErrNotFound, "no such volume")
	}
	delete(f.volumes, name)
	return nil
}

func (f *fake) Mount(ctx context.Context, name, _ string) (string, error) {
	if err := f.call(ctx, "mount", name); err != nil {
		return "", err
	}
	if !f.has(name) {
		return "", errdefs.Errorf(errdefs.ErrNotFound, "no such volume")
	}
	return f.dir, nil
}

func (f *fake) Unmount(ctx context.Context, name, _ string) error {
	return f.call(ctx, "unmount", name)
}

func (f *fake) Volumes(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := f.call(ctx, "volumes", ""); err != nil {
			yield(Info{}, err)
			return
		}
		f.mu.Lock()
		names := slices.Sorted(maps.Keys(f.volumes))
		f.mu.Unlock()
		for _, name := range names {
			if !yield(Info{Name: name}, nil) {
				return
			}
		}
	}
}

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

// newTestHandler makes a Handler that does nothing by the clock and believes that no
// container holds anything, unless o says otherwise.
func newTestHandler(t *testing.T, d Driver, o Options) *Handler {
	t.Helper()
	if o.Refresh == 0 {
		o.Refresh = -1
	}
	if o.Held == nil {
		o.Held = func(context.Context, string) (bool, bool) { return false, true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	h, err := NewHandler(t.Context(), d, o)
	if err != nil {
		t.Fatalf("NewHandler: %v", err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return h
}

func mustMount(t *testing.T, h *Handler, name, id string) string {
	t.Helper()
	p, err := h.Mount(t.Context(), name, id)
	if err != nil {
		t.Fatalf("Mount(%q, %.8s): %v", name, id, err)
	}
	return p
}

func mustUnmount(t *testing.T, h *Handler, name, id string) {
	t.Helper()
	if err := h.Unmount(t.Context(), name, id); err != nil {
		t.Fatalf("Unmount(%q, %.8s): %v", name, id, err)
	}
}

func mustBe(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: %v, want an error of class %q", what, err, errdefs.Name(class))
	}
}

func wantCount(t *testing.T, h *Handler, name, id string, want int) {
	t.Helper()
	if got := h.mounts.get(name).Refs[id].Count; got != want {
		t.Errorf("mount ID %.8s of %q counts %d, want %d", id, name, got, want)
	}
}

// post sends one call to h without a network in between.
func post(t *testing.T, h *Handler, method string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/VolumeDriver."+method, bytes.NewReader(body))
	h.Methods()["VolumeDriver."+method].ServeHTTP(w, r)
	return w
}

// id is the n-th mount ID as an engine makes them.
func id(n int) string { return strings.Repeat("0", 63) + string("0123456789abcdef"[n]) }

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "lock":
		os.Exit(lockChild())
	case "container":
		if err := containerChild(os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(killChild())
	}
}
