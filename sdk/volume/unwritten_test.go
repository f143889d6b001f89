package volume

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fill makes the ledger's disk full until the returned function is called.
func fill(t *testing.T, l *ledger) (empty func()) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	set := func(f *os.File) (was *os.File) {
		l.mu.Lock()
		defer l.mu.Unlock()
		was, l.file = l.file, f
		return was
	}
	was := set(full)
	return func() {
		if err := set(was).Close(); err != nil {
			t.Error(err)
		}
	}
}

// An Unmount whose word in the ledger was lost has happened all the same: an engine does
// not send it again.
func TestUnmountOnAFullDisk(t *testing.T) {
	for _, linger := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.options.Linger = linger
			s.restart()
			mustMount(t, s.Handler, "a", id(1))
			mustMount(t, s.Handler, "a", "by hand")
			mustMount(t, s.Handler, "b", id(1))
			empty := fill(t, s.mounts.ledger)
			for _, name := range []string{"a", "b"} {
				if err := s.Unmount(t.Context(), name, id(1)); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("Unmount of %s: %v", name, err)
				}
				wantCount(t, s.Handler, name, id(1), 0)
			}
			time.Sleep(time.Minute)
			if changed := s.Reconcile(t.Context()); len(changed) == 0 {
				t.Error("a ledger that cannot be written is told to nobody")
			}
			empty()
			s.Reconcile(t.Context())
			if n := len(s.driver.calls("unmount")); n == 0 {
				t.Error("the driver has not unmounted")
			}
			s.restart() // which reads what was written
			wantCount(t, s.Handler, "a", id(1), 0)
			wantCount(t, s.Handler, "a", "by hand", 1)
			if rec := s.mounts.get("b"); rec.Mountpoint != "" || len(rec.Refs) != 0 {
				t.Errorf("record of what was unmounted: %+v", rec.record)
			}
			if err := s.Remove(t.Context(), "b"); err != nil {
				t.Errorf("Remove: %v", err)
			}
			if got := s.Reconcile(t.Context()); len(got) != 0 {
				t.Errorf("changed once more: %q", got)
			}
		})
	}
}

// A Mount that cannot be written down is none, and takes nothing from others.
func TestMountOnAFullDisk(t *testing.T) {
	s := newStage(t)
	mustMount(t, s.Handler, "a", id(1))
	empty := fill(t, s.mounts.ledger)
	for _, name := range []string{"a", "b"} {
		if _, err := s.Mount(t.Context(), name, id(2)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Mount: %v", err)
		}
		wantCount(t, s.Handler, name, id(2), 0)
	}
	empty()
	if got := s.driver.calls("unmount"); len(got) != 1 || got[0] != "unmount b" {
		t.Errorf("driver: %q", got)
	}
	wantCount(t, s.Handler, "a", id(1), 1)
	mustUnmount(t, s.Handler, "a", id(1))
}
