package ceph

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// refused runs a command that must fail, and returns the status that it ended with: rbd ends
// with the number of the error.
func refused(t *testing.T, c *Cluster, program string, args ...string) (syscall.Errno, string) {
	t.Helper()
	_, err := c.Run(t.Context(), program, args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v, want it refused", program, strings.Join(args, " "), err)
	}
	return syscall.Errno(exit.ExitCode()), err.Error()
}

// list runs a command of rbd and decodes its JSON.
func list[T any](t *testing.T, c *Cluster, args ...string) T {
	t.Helper()
	var v T
	out := c.Must(t, "rbd", append(args, "--format", "json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("rbd %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return v
}

type image struct {
	Name, ID string
	Size     int64
	Features []string
	Parent   *struct{ Image, Snapshot string }
}

func TestClustersDoNotClash(t *testing.T) {
	a, b := New(t), New(t)
	a.Must(t, "rbd", "create", "only-a", "--size", "1M")
	b.Must(t, "rbd", "create", "only-b", "--size", "1M")
	for c, want := range map[*Cluster][]string{a: {"only-a"}, b: {"only-b"}} {
		if diff := cmp.Diff(want, list[[]string](t, c, "ls")); diff != "" {
			t.Error(diff)
		}
	}
}

func TestStopEndsItsProcessesAlone(t *testing.T) {
	a, b := New(t), New(t)
	mine, others := having(t, a.Dir), having(t, b.Dir)
	if len(mine) != 3 || len(others) != 3 {
		t.Fatalf("%d and %d processes, want 3 of each", len(mine), len(others))
	}
	a.Stop()
	if left := having(t, a.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if diff := cmp.Diff(others, having(t, b.Dir)); diff != "" {
		t.Error(diff)
	}
}

// having returns the processes with a word in their command line.
func having(t *testing.T, word string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), word) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

func TestUserMayUseItsPoolAlone(t *testing.T) {
	c := Shared(t)
	if _, err := c.Admin(t.Context(), "osd", "pool", "create", "other", "1"); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "rbd", "ls")
	for _, args := range [][]string{
		{"rbd", "create", "other/x", "--size", "1M"},
		{"rados", "-p", "other", "ls"},
		{"ceph", "osd", "pool", "create", "more"},
		{"ceph", "auth", "ls"},
	} {
		if _, text := refused(t, c, args[0], args[1:]...); !strings.Contains(text, "not permitted") && !strings.Contains(text, "EACCES") {
			t.Error(text)
		}
	}
}

func TestCreate(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "create", "--size", "64M", "--image-feature", "layering,exclusive-lock,object-map,fast-diff,deep-flatten")
	got := list[image](t, c, "info", "create")
	if got.ID == "" {
		t.Error("no id")
	}
	got.ID = ""
	want := image{Name: "create", Size: 64 << 20, Features: []string{"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if status, text := refused(t, c, "rbd", "create", "create", "--size", "64M"); status != syscall.EEXIST {
		t.Errorf("again: %v: %s", status, text)
	}
	if status, text := refused(t, c, "rbd", "info", "nothing"); status != syscall.ENOENT {
		t.Errorf("none: %v: %s", status, text)
	}
}

func TestTags(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "tags", "--size", "1M")
	big := strings.Repeat("x", 64<<10)
	want := map[string]string{"remora:id": "1", "remora:name": "a \"b\" ü\n", "big": big}
	for k, v := range want {
		c.Must(t, "rbd", "image-meta", "set", "tags", k, v)
	}
	if status, text := refused(t, c, "rbd", "image-meta", "set", "tags", "empty", ""); status != syscall.EINVAL {
		t.Errorf("an empty value: %v: %s", status, text)
	}
	if diff := cmp.Diff(want, list[map[string]string](t, c, "image-meta", "list", "tags")); diff != "" {
		t.Error(diff)
	}
	if got := c.Must(t, "rbd", "image-meta", "get", "tags", "remora:id"); got != "1\n" {
		t.Errorf("got %q", got)
	}
	if status, text := refused(t, c, "rbd", "image-meta", "get", "tags", "none"); status != syscall.ENOENT {
		t.Errorf("none: %v: %s", status, text)
	}
	c.Must(t, "rbd", "image-meta", "remove", "tags", "big")
	// A clone inherits the tags: who finds them may not believe that they are its own.
	c.Must(t, "rbd", "snap", "create", "tags@s", "--no-progress")
	c.Must(t, "rbd", "snap", "protect", "tags@s")
	c.Must(t, "rbd", "clone", "tags@s", "tags-clone")
	if got := list[map[string]string](t, c, "image-meta", "list", "tags-clone"); got["remora:id"] != "1" {
		t.Errorf("the clone has %v", got)
	}
}

func TestSnapshots(t *testing.T) {
	c := Shared(t)
	m := mounted(t, c)
	c.Must(t, "rbd", "create", "snaps", "--size", "8M")
	write(t, m, "snaps", "old")
	c.Must(t, "rbd", "snap", "create", "snaps@s", "--no-progress")
	if status, text := refused(t, c, "rbd", "snap", "create", "snaps@s"); status != syscall.EEXIST {
		t.Errorf("again: %v: %s", status, text)
	}
	type snapshot struct {
		Name, Protected string
		Size            int64
	}
	if diff := cmp.Diff([]snapshot{{"s", "false", 8 << 20}}, list[[]snapshot](t, c, "snap", "ls", "snaps")); diff != "" {
		t.Error(diff)
	}
	write(t, m, "snaps", "new")

	if _, text := refused(t, c, "rbd", "clone", "--rbd-default-clone-format", "1", "snaps@s", "clone-1"); !strings.Contains(text, "protected") {
		t.Errorf("clone of a snapshot that is not protected: %s", text)
	}
	// Format 2 needs no protection, and lets the snapshot be removed: it goes to the trash.
	c.Must(t, "rbd", "clone", "--rbd-default-clone-format", "2", "snaps@s", "clone-2")
	if p := list[image](t, c, "info", "clone-2").Parent; p == nil || p.Image != "snaps" || p.Snapshot != "s" {
		t.Errorf("parent %v", p)
	}
	c.Must(t, "rbd", "snap", "protect", "snaps@s")
	if status, text := refused(t, c, "rbd", "snap", "rm", "snaps@s", "--no-progress"); status != syscall.EBUSY {
		t.Errorf("remove a protected snapshot: %v: %s", status, text)
	}
	c.Must(t, "rbd", "clone", "--rbd-default-clone-format", "1", "snaps@s", "clone-1")
	if status, text := refused(t, c, "rbd", "snap", "unprotect", "snaps@s"); status != syscall.EBUSY {
		t.Errorf("unprotect with a clone: %v: %s", status, text)
	}
	if status, text := refused(t, c, "rbd", "rm", "snaps", "--no-progress"); status != syscall.ENOTEMPTY {
		t.Errorf("remove with snapshots: %v: %s", status, text)
	}
	for _, clone := range []string{"clone-1", "clone-2"} {
		if got := read(t, m, clone); got != "old" {
			t.Errorf("%s has %q", clone, got)
		}
		c.Must(t, "rbd", "flatten", clone, "--no-progress")
		if p := list[image](t, c, "info", clone).Parent; p != nil {
			t.Errorf("parent of %s after flatten: %v", clone, p)
		}
	}
	if got := read(t, m, "snaps"); got != "new" {
		t.Errorf("the source has %q", got)
	}
	c.Must(t, "rbd", "snap", "rollback", "snaps@s", "--no-progress")
	m.Close()
	m = mounted(t, c)
	if got := read(t, m, "snaps"); got != "old" {
		t.Errorf("rolled back to %q", got)
	}
	m.Close()
	c.Must(t, "rbd", "snap", "unprotect", "snaps@s")
	c.Must(t, "rbd", "snap", "rm", "snaps@s", "--no-progress")
	c.Must(t, "rbd", "rm", "snaps", "--no-progress")
}

func TestTrash(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "trash", "--size", "8M")
	m := mounted(t, c)
	hold(t, m, "trash")
	// That somebody has it open keeps it from being removed, but not from the trash.
	if status, text := refused(t, c, "rbd", "rm", "trash", "--no-progress"); status != syscall.EBUSY {
		t.Errorf("remove in use: %v: %s", status, text)
	}
	id := list[image](t, c, "info", "trash").ID
	c.Must(t, "rbd", "trash", "mv", "trash", "--expires-at", "1 hour")
	m.Close()
	type entry struct{ ID, Name string }
	if diff := cmp.Diff([]entry{{id, "trash"}}, list[[]entry](t, c, "trash", "ls")); diff != "" {
		t.Error(diff)
	}
	if status, text := refused(t, c, "rbd", "trash", "rm", id, "--no-progress"); status != syscall.EPERM {
		t.Errorf("remove before it expires: %v: %s", status, text)
	}
	c.Must(t, "rbd", "trash", "restore", id, "--image", "again")
	if got := list[image](t, c, "info", "again").ID; got != id {
		t.Errorf("restored as %q, was %q", got, id)
	}
	c.Must(t, "rbd", "trash", "mv", "again")
	c.Must(t, "rbd", "trash", "rm", id, "--force", "--no-progress")
}

type usage struct {
	Images []struct {
		Name        string
		Provisioned int64 `json:"provisioned_size"`
		Used        int64 `json:"used_size"`
	}
}

func TestDu(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "du", "--size", "64M")
	m := mounted(t, c)
	write(t, m, "du", "x")
	got := list[usage](t, c, "du", "du").Images
	if len(got) != 1 || got[0].Provisioned != 64<<20 || got[0].Used != 4<<20 {
		t.Errorf("got %+v", got)
	}
}

// mounted mounts the pool for a test.
func mounted(t *testing.T, c *Cluster) *Mount {
	t.Helper()
	m, err := c.Fuse(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// hold opens an image, and has it open until the end of the test or a close before.
func hold(t *testing.T, m *Mount, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(m.File(name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// write writes a line at the beginning of an image, past all caches.
func write(t *testing.T, m *Mount, name, text string) {
	t.Helper()
	f := hold(t, m, name)
	if _, err := f.WriteAt([]byte(text+"\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// read reads the line that write wrote.
func read(t *testing.T, m *Mount, name string) string {
	t.Helper()
	b := make([]byte, 64)
	if _, err := hold(t, m, name).ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
