package pooldir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// unflushable opens the pool in a way in which its names cannot be brought to the disk, as on a
// disk that fails: fsync(2) is EBADF for what O_PATH opened.
func unflushable(t *testing.T, path string) *Dir {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := &Dir{File: os.NewFile(uintptr(fd), path), FD: fd}
	t.Cleanup(dir.Close)
	return dir
}

// TestNothingMovesThatCannotBeFlushed: who is told of an error finds the volume where it was, and
// not listed in one place and lying in another.
func TestNothingMovesThatCannotBeFlushed(t *testing.T) {
	path, dir := openDir(t)
	broken := unflushable(t, path)
	deleted := false
	p := &Pool{Path: path, Log: slog.New(slog.DiscardHandler), Delete: func(context.Context, *Dir, string) error {
		deleted = true
		return nil
	}}
	if err := os.MkdirAll(path+"/vol/data", 0o700); err != nil {
		t.Fatal(err)
	}
	there := func(name string) {
		t.Helper()
		if _, err := os.Stat(path + "/" + name + "/data"); err != nil {
			t.Error(err)
		}
	}
	for what, f := range map[string]func() error{
		"Remove":  func() error { return p.destroy(t.Context(), broken, "vol") },
		"Trash":   func() error { return broken.trash("vol") },
		"Publish": func() error { return broken.Publish("vol", "other") },
	} {
		if err := f(); !errors.Is(err, unix.EBADF) {
			t.Errorf("%s on a disk that fails: %v", what, err)
		}
		there("vol")
	}
	if all, err := dir.trashed(); deleted || err != nil || len(all) != 0 {
		t.Errorf("deleted: %v; in the trash: %v, %v", deleted, all, err)
	}
	if err := dir.trash("vol"); err != nil {
		t.Fatal(err)
	}
	all, err := dir.trashed()
	if err != nil || len(all) != 1 {
		t.Fatalf("in the trash: %v, %v", all, err)
	}
	if err := broken.restore(all[0].ID, "vol"); !errors.Is(err, unix.EBADF) {
		t.Errorf("restored on a disk that fails: %v", err)
	}
	there(trashPath(all[0].ID) + "/vol")
}
