package lab

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Share makes what is mounted below a directory of the machine the same inside the host and outside, in both
// directions: for a server outside that mounts for who is inside. The directory has to be a mountpoint, and shared.
func (h *Host) Share(dir string) {
	h.t.Helper()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		h.t.Fatalf("host %s: share %s: %v", h.Name, dir, err)
	}
	defer unix.Close(tree)
	if err := onThread(func() error {
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", h.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(ns)
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
			return err
		}
		return unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}); err != nil {
		h.t.Fatalf("host %s: share %s: %v", h.Name, dir, err)
	}
}

// onThread calls do on a thread that nobody else gets: it ends with the call. It is never the process's first, which
// cannot end, and whose namespace is what /proc/self shows.
func onThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(do) // on another, as this one is taken meanwhile
			runtime.UnlockOSThread()
			return
		}
		done <- do()
	}()
	return <-done
}
