package volumes_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/managed/volumes"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// driver is a volume driver in memory that fails when the test wants it to.
type driver struct {
	mu   sync.Mutex
	has  map[string]map[string]string
	down error
	// after fails a Create after it has made the volume.
	after error
}

func (d *driver) Create(_ context.Context, name string, opts map[string]string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		return d.down
	}
	d.has[name] = opts
	return d.after
}

func (d *driver) Remove(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		return d.down
	}
	delete(d.has, name)
	return nil
}

func (d *driver) Get(_ context.Context, name string) (volume.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		return volume.Info{}, d.down
	}
	if _, ok := d.has[name]; !ok {
		return volume.Info{}, errdefs.Errorf(errdefs.ErrNotFound, "no %q", name)
	}
	return volume.Info{Name: name}, nil
}

func (d *driver) List(context.Context) (all []volume.Info, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.has)) {
		all = append(all, volume.Info{Name: name})
	}
	return all, d.down
}

func (d *driver) Scope(context.Context) string { return "local" }

// set is the drivers that there are.
type set map[string]*driver

func (s set) Find(_ context.Context, name string) (volumes.Named, error) {
	d, ok := s[name]
	if !ok {
		return volumes.Named{}, errdefs.Errorf(errdefs.ErrNotFound, "plugin %q not found", name)
	}
	return volumes.Named{Name: name, Driver: d}, nil
}

func (s set) All(context.Context) (all []volumes.Named) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		all = append(all, volumes.Named{Name: name, Driver: s[name]})
	}
	return all
}

func open(t *testing.T, dir string, s set) *volumes.Service {
	t.Helper()
	v, err := volumes.Open(dir, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func two() set {
	return set{"a": {has: map[string]map[string]string{}}, "b": {has: map[string]map[string]string{}}}
}

func wantText(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Errorf("got %v, want %s", err, text)
	}
}

func TestLabelsOutliveARestart(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "v"), two()
	v := open(t, dir, s)
	labels, opts := map[string]string{"k": "v"}, map[string]string{"size": "1"}
	if _, made, err := v.Create(t.Context(), "x", "a", opts, labels); err != nil || !made {
		t.Fatal(made, err)
	}
	if _, made, err := v.Create(t.Context(), "x", "a", nil, map[string]string{"other": ""}); err != nil || made {
		t.Errorf("again: %v, %v", made, err)
	}
	_ = v.Close()
	v = open(t, dir, s)
	got, err := v.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(labels, got.Labels) + cmp.Diff(opts, got.Options); diff != "" || got.Driver != "a" {
		t.Error(got.Driver, diff)
	}
	if diff := cmp.Diff([]string{"x"}, v.Of("a")); diff != "" {
		t.Error(diff)
	}
}

func TestOneNameOneDriver(t *testing.T) {
	s := two()
	v := open(t, t.TempDir(), s)
	if _, _, err := v.Create(t.Context(), "x", "a", nil, nil); err != nil {
		t.Fatal(err)
	}
	_, _, err := v.Create(t.Context(), "x", "b", nil, nil)
	wantText(t, err, "create x: driver 'a' already has volume 'x': volume name must be unique")
	if !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("class of %v", err)
	}
	// What the other one has of this name is not shown.
	s["b"].has["x"] = nil
	all, _ := v.List(t.Context())
	if len(all) != 1 || all[0].Driver != "a" {
		t.Errorf("list: %+v", all)
	}
	// Where its driver does not have it any more, the name is free.
	delete(s["a"].has, "x")
	if got, _, err := v.Create(t.Context(), "x", "b", nil, nil); err != nil || got.Driver != "b" {
		t.Errorf("a name that is free again: %+v, %v", got, err)
	}
}

func TestWhatIsOutOfReachIsNotForgotten(t *testing.T) {
	s := two()
	v := open(t, t.TempDir(), s)
	if _, _, err := v.Create(t.Context(), "x", "a", nil, map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	s["a"].down = errdefs.Errorf(errdefs.ErrUnavailable, "gone fishing")
	_, err := v.Get(t.Context(), "x")
	wantText(t, err, `get x: error while checking if volume "x" exists in driver "a": gone fishing`)
	all, warnings := v.List(t.Context())
	if len(all) != 1 || all[0].Labels["k"] != "v" || len(warnings) != 1 {
		t.Errorf("list while it is away: %+v, %q", all, warnings)
	}
	wantText(t, v.Remove(t.Context(), "x", false), `get x: error while checking if volume "x" exists in driver "a": gone fishing`)
	s["a"].down = nil
	if got, err := v.Get(t.Context(), "x"); err != nil || got.Labels["k"] != "v" {
		t.Errorf("after it came back: %+v, %v", got, err)
	}
	// Only when it says that it has none is it forgotten.
	delete(s["a"].has, "x")
	_, err = v.Get(t.Context(), "x")
	wantText(t, err, "get x: no such volume")
	if of := v.Of("a"); len(of) > 0 {
		t.Errorf("still known: %q", of)
	}
}

func TestCreateThatIsCutOff(t *testing.T) {
	s := two()
	v := open(t, t.TempDir(), s)
	s["a"].after = errdefs.Errorf(errdefs.ErrUnavailable, "the connection broke")
	if _, _, err := v.Create(t.Context(), "x", "a", nil, map[string]string{"k": "v"}); err == nil {
		t.Fatal("it succeeds")
	}
	s["a"].after = nil
	if got, err := v.Get(t.Context(), "x"); err != nil || got.Labels["k"] != "v" {
		t.Errorf("a volume that was made without an answer: %+v, %v", got, err)
	}
	s["a"].down = errors.New("disk full")
	_, _, err := v.Create(t.Context(), "y", "a", nil, nil)
	wantText(t, err, "create y: disk full")
	if diff := cmp.Diff([]string{"x"}, v.Of("a")); diff != "" {
		t.Error(diff)
	}
}

func TestRemove(t *testing.T) {
	s := two()
	v := open(t, t.TempDir(), s)
	wantText(t, v.Remove(t.Context(), "x", false), "get x: no such volume")
	if err := v.Remove(t.Context(), "x", true); err != nil {
		t.Errorf("by force: %v", err)
	}
	s["b"].has["x"] = nil // made by somebody else
	if err := v.Remove(t.Context(), "x", false); err != nil {
		t.Error(err)
	}
	if len(s["b"].has) > 0 || len(v.Of("b")) > 0 {
		t.Errorf("left: %v, %v", s["b"].has, v.Of("b"))
	}
	_, _, err := v.Create(t.Context(), "x", "none", nil, nil)
	wantText(t, err, `create x: error looking up volume plugin none: plugin "none" not found`)
	if got, _, err := v.Create(t.Context(), "", "a", nil, nil); err != nil || len(got.Name) != 64 {
		t.Errorf("without a name: %+v, %v", got, err)
	}
}

// TestKilledWhileItWrote: what was half written goes at the next start.
func TestKilledWhileItWrote(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".remora-tmp-X"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, two())
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestDriverThatIsGone: a plugin that was removed took its volumes along, and their names are free again.
func TestDriverThatIsGone(t *testing.T) {
	dir, s := t.TempDir(), two()
	v := open(t, dir, s)
	for _, name := range []string{"x", "y"} {
		if _, _, err := v.Create(t.Context(), name, "a", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	gone := s["a"]
	delete(s, "a")
	wantText(t, v.Remove(t.Context(), "x", false), `get x: error while checking if volume "x" exists in driver "a": error looking up volume plugin a: plugin "a" not found`)
	if err := v.Remove(t.Context(), "x", true); err != nil {
		t.Errorf("by force: %v", err)
	}
	if diff := cmp.Diff([]string{"y"}, v.Of("a")); diff != "" {
		t.Error(diff)
	}
	if err := v.Forget("a"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Create(t.Context(), "y", "b", nil, nil); err != nil {
		t.Errorf("a name that is free again: %v", err)
	}
	_ = v.Close()
	s["a"] = gone
	v = open(t, dir, s)
	if of := v.Of("a"); len(of) > 0 {
		t.Errorf("another plugin of this name has %q", of)
	}
}
