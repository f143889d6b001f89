package pooldir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSweptBeforeItIsLocked: whoever sweeps finds a directory that its builder has made and not locked yet, and deletes it. The
// builder must find the lock taken until it is gone: with the lock in his hands he would fill a directory that is being deleted.
func TestSweptBeforeItIsLocked(t *testing.T) {
	path, dir := openDir(t)
	var p *Pool
	taken := errors.New("nothing was deleted")
	p = &Pool{Path: path, Log: slog.New(slog.DiscardHandler), Delete: func(_ context.Context, dir *Dir, name string) error {
		fd, err := unix.Openat(dir.FD, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		taken = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) // as the builder does
		return unix.Unlinkat(dir.FD, name, unix.AT_REMOVEDIR)
	}}
	name := p.Hidden(New)
	if err := unix.Mkdirat(dir.FD, name, 0o700); err != nil {
		t.Fatal(err)
	}
	p.Sweep(t.Context(), []string{name})
	p.Wait()
	if !errors.Is(taken, unix.EWOULDBLOCK) {
		t.Errorf("the builder gets the lock while it is deleted: %v", taken)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBuildersAndSweeps: what builders make beside sweeps is there when they publish it.
func TestBuildersAndSweeps(t *testing.T) {
	path, dir := openDir(t)
	p := &Pool{Path: path, Log: slog.New(slog.DiscardHandler), Delete: func(_ context.Context, dir *Dir, name string) error {
		return unix.Unlinkat(dir.FD, name, unix.AT_REMOVEDIR)
	}}
	done := make(chan struct{})
	var builders, sweepers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				entries, err := hiddenIn(path)
				if err != nil {
					t.Error(err)
					return
				}
				p.Sweep(t.Context(), entries)
			}
		})
	}
	for range 4 {
		builders.Go(func() {
			for range 200 {
				aside, fd, err := p.NewAside(dir, New, 0o700)
				if err != nil {
					t.Error(err)
					return
				}
				if err := dir.Publish(aside, NewID()); err != nil {
					t.Errorf("%s: %v", aside, err)
				}
				_ = unix.Close(fd)
			}
		})
	}
	builders.Wait()
	close(done)
	sweepers.Wait()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func hiddenIn(path string) (names []string, err error) {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}
