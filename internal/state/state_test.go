package state_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type facts struct {
	Name string `json:"name"`
	Pad  string `json:"pad,omitzero"`
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteReadRemove(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	if err := root.Mkdir("jobs", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if err := state.Write(root, "jobs/a.json", 1, facts{Name: name}); err != nil {
			t.Fatal(err)
		}
		var got facts
		if err := state.Read(root, "jobs/a.json", 1, &got); err != nil || got.Name != name {
			t.Fatalf("read %+v, %v", got, err)
		}
	}
	raw, err := root.ReadFile("jobs/a.json")
	if err != nil || string(raw) != "{\"version\":1,\"name\":\"two\"}\n" {
		t.Errorf("file is %q, %v", raw, err)
	}
	fi, err := root.Stat("jobs/a.json")
	if err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode is %v, %v", fi.Mode(), err)
	}
	for range 2 {
		if err := state.Remove(root, "jobs/a.json"); err != nil {
			t.Fatal(err)
		}
	}
	if left := names(t, filepath.Join(dir, "jobs")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := state.Read(root, "jobs/a.json", 1, &facts{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("read of nothing: %v", err)
	}
}

func TestCreateDoesNotReplace(t *testing.T) {
	root := openRoot(t, t.TempDir())
	if err := state.Create(root, "a", 1, facts{Name: "first"}); err != nil {
		t.Fatal(err)
	}
	if err := state.Create(root, "a", 1, facts{Name: "second"}); !errors.Is(err, errdefs.ErrExists) {
		t.Errorf("second create: %v", err)
	}
	var got facts
	if err := state.Read(root, "a", 1, &got); err != nil || got.Name != "first" {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestReadOfWhatIsNotWhole(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	whole, err := state.Encode(1, facts{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(whole) - 1 { // the last byte is a newline that nobody misses
		if err := os.WriteFile(filepath.Join(dir, "torn"), whole[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := state.Read(root, "torn", 1, &facts{}); !errors.Is(err, state.ErrCorrupt) {
			t.Fatalf("torn after %d bytes: %v", i, err)
		}
	}
	for text, want := range map[string]error{
		`{"name":"x"}`:                        state.ErrCorrupt,
		`{"version":0,"name":"x"}`:            state.ErrCorrupt,
		`{"version":1,"name":5}`:              state.ErrCorrupt,
		`[]`:                                  state.ErrCorrupt,
		strings.Repeat(" ", state.MaxSize+1):  state.ErrCorrupt,
		`{"version":2,"name":{}}`:             errdefs.ErrUnsupported,
		`{"version":1,"name":"x","later":{}}`: nil,
	} {
		if err := state.Decode([]byte(text), 1, &facts{}); !errors.Is(err, want) {
			t.Errorf("%.40s: %v, want %v", text, err, want)
		}
	}
}

func TestNamesStayBelowTheRoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(dir, "in", "up")); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, filepath.Join(dir, "in"))
	for _, name := range []string{"../a", "up/a"} {
		if err := state.Write(root, name, 1, facts{}); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("outside lies %v", got)
	}
}

func TestCleanTakesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	for _, name := range []string{".remora-tmp-ABC", "a.json", ".remora-tmpx"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".remora-tmp-DIR"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := state.Clean(root, "."); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(names(t, dir)); got != "[.remora-tmp-DIR .remora-tmpx a.json]" {
		t.Errorf("left %s", got)
	}
}

func TestWritersRace(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for range 20 {
				if err := state.Write(root, "a", 1, facts{Name: fmt.Sprint(w), Pad: strings.Repeat("x", 100*w)}); err != nil {
					t.Error(err)
				}
				if err := state.Read(root, "a", 1, &facts{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}

func TestFullDiskLeavesTheOldFile(t *testing.T) {
	testenv.Require(t, testenv.Root)
	dir := t.TempDir()
	if err := syscall.Mount("state-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := state.Write(root, "a", 1, facts{Name: "old"}); err != nil {
		t.Fatal(err)
	}
	err = state.Write(root, "a", 1, facts{Name: "new", Pad: strings.Repeat("x", 100<<10)})
	if !errors.Is(err, errdefs.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) || len(errdefs.Hints(err)) != 1 {
		t.Errorf("write to a full disk: %v, hints %q", err, errdefs.Hints(err))
	}
	if err.Error() != "write a: no space left on device" {
		t.Errorf("text is %q", err)
	}
	var got facts
	if err := state.Read(root, "a", 1, &got); err != nil || got.Name != "old" {
		t.Errorf("read %+v, %v", got, err)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}

func TestClassify(t *testing.T) {
	for errno, want := range map[syscall.Errno]error{
		syscall.EROFS: errdefs.ErrUnavailable, syscall.EACCES: errdefs.ErrDenied, syscall.EBUSY: errdefs.ErrInUse,
		syscall.ENOENT: errdefs.ErrNotFound, syscall.EDQUOT: errdefs.ErrUnavailable, syscall.EINVAL: nil,
	} {
		err := &fs.PathError{Op: "open", Path: "/x", Err: errno}
		if got := state.Classify(err); !errors.Is(errdefs.Class(got), want) || got.Error() != err.Error() {
			t.Errorf("%v: class %v, text %q", errno, errdefs.Class(got), got)
		}
	}
	kept := errdefs.As(errdefs.ErrInvalid, syscall.ENOENT)
	if got := state.Classify(kept); !errors.Is(errdefs.Class(got), errdefs.ErrInvalid) {
		t.Errorf("a class was replaced by %v", errdefs.Class(got))
	}
	if state.Classify(nil) != nil {
		t.Error("nil has a class")
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "{}", `{"version":1,"name":"a"}`, `{"version":9}`, "{\"version\":1,"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got facts
		if err := state.Decode(data, 1, &got); err != nil {
			if !errors.Is(err, state.ErrCorrupt) && !errors.Is(err, errdefs.ErrUnsupported) {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		again, err := state.Encode(1, got)
		if err != nil {
			t.Fatal(err)
		}
		var back facts
		if err := state.Decode(again, 1, &back); err != nil || back != got {
			t.Errorf("%q: %+v became %+v, %v", data, got, back, err)
		}
	})
}
