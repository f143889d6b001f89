package ceph

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/cloud/process"
)

// What keeps two hosts from writing to one image, and what the one sees that is put out.

type watcher struct {
	Address string
	Client  int
}

// watchers are the clients that have the image open.
func watchers(t *testing.T, c *Cluster, name string) []watcher {
	t.Helper()
	return list[struct{ Watchers []watcher }](t, c, "status", name).Watchers
}

type lock struct{ ID, Locker, Address string }

func locks(t *testing.T, c *Cluster, name string) []lock {
	t.Helper()
	return list[[]lock](t, c, "lock", "ls", name)
}

// disk attaches a loop device to an image, and makes a file system on it.
func disk(t *testing.T, m *Mount, name string) (device, mountpoint string) {
	t.Helper()
	out, err := process.Run(t.Context(), nil, "losetup", "--find", "--show", m.File(name))
	if err != nil {
		t.Fatal(err)
	}
	device, mountpoint = strings.TrimSpace(out), t.TempDir()
	t.Cleanup(func() {
		_ = unix.Unmount(mountpoint, unix.MNT_DETACH)
		_, _ = process.Run(context.WithoutCancel(t.Context()), nil, "losetup", "--detach", device)
	})
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-E", "nodiscard", device}, {"mount", device, mountpoint}} {
		if _, err := process.Run(t.Context(), nil, args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	return device, mountpoint
}

func put(path, text string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Sync()
}

func TestFlush(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "flush", "--size", "64M")
	m := mounted(t, c)
	_, at := disk(t, m, "flush")
	if err := put(filepath.Join(at, "f"), "flushed"); err != nil {
		t.Fatal(err)
	}
	m.Kill()
	copied := filepath.Join(t.TempDir(), "image")
	c.Must(t, "rbd", "export", "flush", copied, "--no-progress")
	at = t.TempDir()
	if _, err := process.Run(t.Context(), nil, "mount", "-o", "loop", copied, at); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, 0)
	if b, err := os.ReadFile(filepath.Join(at, "f")); err != nil || string(b) != "flushed" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestResizeWhileMounted(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "resize", "--size", "64M")
	device, _ := disk(t, mounted(t, c), "resize")
	c.Must(t, "rbd", "resize", "resize", "--size", "128M", "--no-progress")
	if _, err := process.Run(t.Context(), nil, "losetup", "--set-capacity", device); err != nil {
		t.Fatal(err)
	}
	if got, err := process.Run(t.Context(), nil, "blockdev", "--getsize64", device); err != nil || got != "134217728\n" {
		t.Errorf("the device has %q bytes, %v", got, err)
	}
	if status, text := refused(t, c, "rbd", "resize", "resize", "--size", "64M", "--no-progress"); status != syscall.EINVAL || !strings.Contains(text, "allow-shrink") {
		t.Errorf("shrink: %v: %s", status, text)
	}
}

// A client holds an image from when it is first opened until the client ends: to close the file
// is not enough. So a driver mounts one rbd-fuse for each image, with -r.
func TestWatcherStaysUntilTheClientEnds(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "watch", "--size", "8M")
	m := mounted(t, c)
	if w := watchers(t, c, "watch"); len(w) != 0 {
		t.Errorf("nobody opened it: %v", w)
	}
	_ = hold(t, m, "watch").Close()
	if w := watchers(t, c, "watch"); len(w) != 1 {
		t.Errorf("closed: %v", w)
	}
	m.Close()
	if w := watchers(t, c, "watch"); len(w) != 0 {
		t.Errorf("ended: %v", w)
	}
}

// A client that was killed looks alive for 30 s more: watchers prove nothing about who is gone.
func TestWatcherOutlivesAKilledClient(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "watchdead", "--size", "8M")
	m := mounted(t, c)
	write(t, m, "watchdead", "x")
	m.Kill()
	if w := watchers(t, c, "watchdead"); len(w) != 1 {
		t.Errorf("killed: %v", w)
	}
}

// The feature exclusive-lock serialises writers and keeps nobody out: with rbd-fuse the lock
// goes to whoever writes next.
func TestExclusiveLockIsHandedOver(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "handover", "--size", "8M", "--image-feature", "exclusive-lock")
	a, b := mounted(t, c), mounted(t, c)
	write(t, a, "handover", "a")
	first := locks(t, c, "handover")
	if len(first) != 1 || !strings.HasPrefix(first[0].ID, "auto ") {
		t.Fatalf("locks %v", first)
	}
	if w := watchers(t, c, "handover"); len(w) != 1 || w[0].Address != first[0].Address {
		t.Errorf("the lock is of %v, the watcher is %v", first, w)
	}
	write(t, b, "handover", "b")
	second := locks(t, c, "handover")
	if len(second) != 1 || second[0].Locker == first[0].Locker {
		t.Errorf("locks %v, then %v", first, second)
	}
	write(t, a, "handover", "a again")
}

// A lock taken by hand on an image with exclusive-lock keeps everyone from changing it, the
// holder included; who writes waits until the lock is gone. So what a driver locks by hand has no such feature.
func TestLockByHand(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "locked", "--size", "8M", "--image-feature", "exclusive-lock")
	c.Must(t, "rbd", "lock", "add", "locked", "host-1")
	if status, text := refused(t, c, "rbd", "resize", "locked", "--size", "16M", "--no-progress"); status != syscall.EROFS {
		t.Errorf("resize of a locked image: %v: %s", status, text)
	}
	m := mounted(t, c)
	wrote := make(chan error, 1)
	f := hold(t, m, "locked")
	go func() {
		_, err := f.WriteAt([]byte("x"), 0)
		wrote <- err
	}()
	select {
	case err := <-wrote:
		t.Errorf("wrote to a locked image: %v", err)
	case <-time.After(2 * time.Second):
	}
	m.Kill() // which alone ends the wait
	if err := <-wrote; err == nil {
		t.Error("wrote to a locked image")
	}

	c.Must(t, "rbd", "create", "advisory", "--size", "8M", "--image-feature", "layering")
	c.Must(t, "rbd", "lock", "add", "advisory", "host-1")
	if status, text := refused(t, c, "rbd", "lock", "add", "advisory", "host-2"); status != syscall.EBUSY {
		t.Errorf("a second lock: %v: %s", status, text)
	}
	if status, text := refused(t, c, "rbd", "lock", "add", "advisory", "host-1"); status != syscall.EBUSY {
		t.Errorf("the same lock again: %v: %s", status, text)
	}
	held := locks(t, c, "advisory")
	if len(held) != 1 || held[0].ID != "host-1" {
		t.Fatalf("locks %v", held)
	}
	write(t, mounted(t, c), "advisory", "x")
	// The locker is the rbd that took it, which has ended. Anybody can remove it, once.
	c.Must(t, "rbd", "lock", "rm", "advisory", held[0].ID, held[0].Locker)
	if status, text := refused(t, c, "rbd", "lock", "rm", "advisory", held[0].ID, held[0].Locker); status != syscall.ENOENT {
		t.Errorf("remove it again: %v: %s", status, text)
	}
	if !strings.Contains(c.Must(t, "ceph", "osd", "blocklist", "ls"), held[0].Address) {
		t.Errorf("%s is not on the blocklist", held[0].Address)
	}
}

// Who is on the blocklist gets errors for what it has not written yet, also when it was stopped
// meanwhile, and none of it reaches the image.
func TestBlocklist(t *testing.T) {
	c := Shared(t)
	for _, features := range []string{"layering", "layering,exclusive-lock"} {
		t.Run(features, func(t *testing.T) {
			name := "fenced-" + strings.ReplaceAll(features, ",", "-")
			c.Must(t, "rbd", "create", name, "--size", "64M", "--image-feature", features)
			m := mounted(t, c)
			_, at := disk(t, m, name)
			if err := put(filepath.Join(at, "before"), "before"); err != nil {
				t.Fatal(err)
			}
			w := watchers(t, c, name)
			if len(w) != 1 {
				t.Fatalf("watchers %v", w)
			}
			thaw := m.Freeze()
			t.Cleanup(thaw)
			c.Must(t, "ceph", "osd", "blocklist", "add", w[0].Address, "3600")
			if now := watchers(t, c, name); len(now) != 0 {
				t.Errorf("still watched by %v", now)
			}
			other := mounted(t, c)
			write(t, other, name, "mine now")
			thaw()
			for range 3 { // once is not enough: librbd's cache reports a loss once, if at all
				if err := put(filepath.Join(at, "after"), "after"); !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EROFS) {
					t.Errorf("the one put out writes: %v", err)
				}
			}
			// The new holder reads what it wrote. What it reads is in no cache of the kernel.
			other.Close()
			if got := read(t, mounted(t, c), name); got != "mine now" {
				t.Errorf("the image has %q", got)
			}
		})
	}
}

// rbd-fuse cannot punch holes: what is deleted stays allocated, although fstrim says nothing.
func TestNoDiscard(t *testing.T) {
	c := Shared(t)
	c.Must(t, "rbd", "create", "discard", "--size", "64M")
	_, at := disk(t, mounted(t, c), "discard")
	if err := put(filepath.Join(at, "f"), strings.Repeat("x", 20<<20)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(at, "f")); err != nil {
		t.Fatal(err)
	}
	_, _ = process.Run(t.Context(), nil, "fstrim", at)
	if got := list[usage](t, c, "du", "discard").Images; len(got) != 1 || got[0].Used < 20<<20 {
		t.Errorf("used: %+v", got)
	}
}
