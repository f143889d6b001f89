package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/volume"
)

// bound binds each directory to the mountpoint that it is given, as a driver of real storage
// mounts a file system there. It is in no hurry, so that a kill may well come between the
// mount and what the Handler writes down of it.
type bound struct {
	directories
	slow time.Duration
}

func (b bound) wait() {
	if b.slow > 0 {
		time.Sleep(rand.N(b.slow)) //nolint:gosec // a test's dice
	}
}

func (b bound) Mount(ctx context.Context, name, target string) (string, error) {
	dir, err := b.directories.Mount(ctx, name, "")
	if err != nil {
		return "", err
	}
	data, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if there, err := os.Stat(target); err != nil || os.SameFile(data, there) {
		return target, err
	}
	b.wait()
	if err := syscall.Mount(dir, target, "", syscall.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	b.wait()
	return target, nil
}

func (b bound) Unmount(_ context.Context, _, mountpoint string) error {
	b.wait()
	err := syscall.Unmount(mountpoint, 0)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		return nil // it is not mounted
	}
	b.wait()
	return err
}

// Volumes leaves out where the data lies: it is reached by a mount alone.
func (b bound) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		for info, err := range b.directories.Volumes(ctx) {
			if !yield(volume.Info{Name: info.Name}, err) {
				return
			}
		}
	}
}

// nothingLeft fails where something is mounted below root of which the ledger does not know:
// the Handler has started and the engine has not called, so it is the rest of a crash. What
// the ledger knows and nobody uses any more is being unmounted.
func nothingLeft(ctx context.Context, h *volume.Handler, root string) error {
	known := map[string]bool{}
	for v, err := range h.List(ctx) {
		if err != nil {
			return err
		}
		known[v.Name] = v.Mountpoint != ""
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // proc_pid_mountinfo(5): the fifth is the mountpoint
		if name, ok := strings.CutPrefix(f[4], root+"/"); root != "" && ok && !known[name] {
			return fmt.Errorf("volume %q: mounted by a life before this one, and not in the ledger", name)
		}
	}
	return nil
}

// tell answers every request on a socket with the volumes that h knows, until ctx ends.
func tell(ctx context.Context, path string, h *volume.Handler) error {
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: path})
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all := []volume.Volume{}
		for v, err := range h.List(r.Context()) {
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			all = append(all, v)
		}
		_ = json.NewEncoder(w).Encode(all) // whoever hung up asks again
	})}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }() // ends by Close
	return nil
}
