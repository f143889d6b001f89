package pooldir

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func openDir(t *testing.T) (path string, dir *Dir) {
	t.Helper()
	path = t.TempDir()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	dir = &Dir{File: f, FD: int(f.Fd())}
	t.Cleanup(dir.Close)
	return path, dir
}

func TestTrash(t *testing.T) {
	dir, pool := openDir(t)
	if all, err := pool.trashed(); err != nil || len(all) != 0 {
		t.Errorf("without a trash: %v, %v", all, err)
	}
	if err := pool.trash("none"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("what is not there: %v", err)
	}
	for range 2 {
		if err := os.MkdirAll(dir+"/vol/data", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := pool.trash("vol"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	// What a crash leaves, and what is somebody else's.
	for _, odd := range []string{"0000000000000001-00000000", "notes", "zz"} {
		if err := os.Mkdir(dir+"/"+trashPath(odd), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	all, err := pool.trashed()
	if err != nil || len(all) != 2 || all[0].Name != "vol" || !all[0].RemovedAt.Before(all[1].RemovedAt) {
		t.Fatalf("Trashed = %+v, %v", all, err)
	}
	if err := pool.restore(all[0].ID, "vol"); err != nil {
		t.Fatal(err)
	}
	if err := pool.restore(all[0].ID, "again"); !errors.Is(err, errNotInTrash) {
		t.Errorf("restored twice: %v", err)
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/vol/kept", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{"vol", "file"} {
		if err := pool.restore(all[1].ID, taken); !errors.Is(err, errdefs.ErrExists) || len(errdefs.Hints(err)) == 0 {
			t.Errorf("restored onto %s: %v", taken, err)
		}
	}
	if _, err := os.Stat(dir + "/vol/kept"); err != nil {
		t.Error(err)
	}
	if left, err := pool.trashed(); err != nil || len(left) != 1 || left[0] != all[1] {
		t.Errorf("left in the trash: %+v, %v", left, err)
	}
}

func TestMemo(t *testing.T) {
	m := Memo{Dir: t.TempDir(), Pool: "a"}
	want := func(path, want string) {
		t.Helper()
		if got, err := m.Read(path); got != want || err != nil {
			t.Errorf("Read(%s) = %q, %v; want %q", path, got, err, want)
		}
	}
	want("/srv", "")
	for range 2 {
		if err := m.Write("/srv", "id"); err != nil {
			t.Fatal(err)
		}
	}
	want("/srv", "id")
	want("/mnt", "")
	if err := os.WriteFile(m.File(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Read("/srv"); err == nil {
		t.Errorf("a torn memo says %q", got)
	}
	if err := (Memo{Pool: "a"}).Write("/srv", "id"); err != nil {
		t.Errorf("without a directory: %v", err)
	}
}
