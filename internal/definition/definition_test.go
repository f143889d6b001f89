package definition_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/remora-plugins/remora/internal/definition"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type facts struct {
	Name string `json:"name"`
}

func open(t *testing.T, dir string) *definition.Store {
	t.Helper()
	s, err := definition.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestBuildReadRemove(t *testing.T) {
	dir := t.TempDir() + "/volumes"
	s := open(t, dir)
	var f facts
	if err := s.Read("v", 1, &f); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	if err := s.Build("v", 1, facts{"v"}, map[string]string{"password": "hunter2"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Build("v", 1, facts{"other"}, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("build what is there: %v", err)
	}
	if err := s.Read("v", 1, &f); err != nil || f.Name != "v" {
		t.Errorf("read %+v, %v", f, err)
	}
	if b, err := s.ReadFile("v", "password"); err != nil || string(b) != "hunter2" {
		t.Errorf("read %q, %v", b, err)
	}
	for _, path := range []string{dir, s.Path("v", ""), s.Path("v", "password"), s.Path("v", definition.FactsName)} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, fi, err)
		}
	}
	if names, err := s.Names(); err != nil || fmt.Sprint(names) != "[v]" {
		t.Errorf("names are %q, %v", names, err)
	}
	for _, name := range []string{"", "..", "a/b", ".a"} {
		for what, err := range map[string]error{"read": s.Read(name, 1, &f), "build": s.Build(name, 1, f, nil), "remove": s.Remove(name)} {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
	}
	if err := os.WriteFile(s.Path("v", definition.FactsName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Read("v", 1, &f); err == nil || len(errdefs.Hints(err)) == 0 || errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("read what is torn: %v", err)
	}
	if err := s.Remove("v"); err != nil { // torn or not
		t.Error(err)
	}
	if err := s.Remove("v"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("remove nothing: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestSweep: what a crash left goes, what somebody is making stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	if err := s.Build("v", 1, facts{"v"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/.remora-new-1/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	done, err := s.Working()
	if err != nil {
		t.Fatal(err)
	}
	more := 0
	sweep := func() int {
		t.Helper()
		if err := other.Sweep(func() error { more++; return nil }); err != nil {
			t.Error(err)
		}
		left, _ := os.ReadDir(dir)
		return len(left)
	}
	if n := sweep(); n != 2 || more != 0 {
		t.Errorf("swept while somebody works: %d left, more was called %d times", n, more)
	}
	done()
	if n := sweep(); n != 1 || more != 1 {
		t.Errorf("%d left, more was called %d times", n, more)
	}
}

// TestCreateRaces: of many who create and remove a volume, each finds it there or makes it.
func TestCreateRaces(t *testing.T) {
	dir := t.TempDir()
	var built, adopted atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		s := open(t, dir)
		all.Go(func() {
			for range 10 {
				err := s.Create("v", func() error {
					var f facts
					err := s.Read("v", 1, &f)
					if err == nil {
						adopted.Add(1)
					}
					return err
				}, func() error {
					err := s.Build("v", 1, facts{"v"}, map[string]string{"password": "x"})
					if err == nil {
						built.Add(1)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
				if err := s.Remove("v"); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if sum := built.Load() + adopted.Load(); sum != 80 || built.Load() == 0 {
		t.Errorf("built %d times, adopted %d times", built.Load(), adopted.Load())
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
