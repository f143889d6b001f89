package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// snapshotsName is the directory below the mount root in which snapshots are opened, each at
// VOLUME/SNAPSHOT/ and a name of its own. No volume can have this name.
const snapshotsName = ".snapshots"

// ReadSnapshot makes the data of a snapshot reachable at dir while read runs. It is not to be
// written to. Several may read one snapshot at a time, and calls for the volume go on
// meanwhile.
func (h *Handler) ReadSnapshot(ctx context.Context, name, snapshot string, read func(ctx context.Context, dir string) error) (err error) {
	if err := h.options.CheckName(name); err != nil {
		return err
	}
	d, err := can[SnapshotOpener](h, "open snapshots")
	if err == nil {
		err = checkSnapshot(snapshot)
	}
	if err != nil {
		return named(name, err)
	}
	target := ""
	if h.mountpoints.root != "" {
		target = filepath.Join(h.mountpoints.root, snapshotsName, name, snapshot, rand.Text())
	}
	shut := func(ctx context.Context, dir string) error {
		return h.closeSnapshot(ctx, d, name, snapshot, dir, target)
	}
	dir, err := run(ctx, h, name, bounded.Verb[string]{
		Name:  "open snapshot",
		Limit: h.options.LongTimeout,
		Do: func(ctx context.Context) (string, error) {
			dir, err := h.openSnapshot(ctx, d, name, snapshot, target)
			return dir, ofSnapshot(snapshot, err)
		},
		Undo: func(ctx context.Context, dir string) {
			ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
			defer cancel()
			if err := shut(ctx, dir); err != nil {
				h.log.ErrorContext(ctx, "snapshot that nobody waited for cannot be closed", slog.String("volume", name), slog.Any("error", err))
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, h.change(context.WithoutCancel(ctx), "close snapshot", name, func(ctx context.Context) error {
			return ofSnapshot(snapshot, shut(ctx, dir))
		}))
	}()
	return read(ctx, dir)
}

func (h *Handler) openSnapshot(ctx context.Context, d SnapshotOpener, name, snapshot, target string) (string, error) {
	if target != "" {
		if err := os.MkdirAll(target, 0o700); err != nil {
			return "", fmt.Errorf("mountpoint: %w", err)
		}
	}
	dir, err := d.OpenSnapshot(ctx, name, snapshot, target)
	if err == nil {
		if err = h.mountpoints.absolute(dir); err != nil {
			err = errors.Join(err, d.CloseSnapshot(ctx, name, snapshot, dir))
		}
	}
	if err != nil {
		return "", errors.Join(err, dropTarget(target))
	}
	return dir, nil
}

func (h *Handler) closeSnapshot(ctx context.Context, d SnapshotOpener, name, snapshot, dir, target string) error {
	if err := d.CloseSnapshot(ctx, name, snapshot, dir); err != nil {
		return err
	}
	return dropTarget(target)
}

// dropTarget removes the mountpoint of a snapshot, and what it lies in if that is empty now.
// Like every removal of a mountpoint it is an rmdir(2), which takes no data with it.
func dropTarget(target string) error {
	if target == "" {
		return nil
	}
	if err := syscall.Rmdir(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mountpoint: %w", err)
	}
	for range 2 {
		target = filepath.Dir(target)
		_ = syscall.Rmdir(target) // others may be in it
	}
	return nil
}

// dropSnapshots closes what a crash left open.
func (h *Handler) dropSnapshots(ctx context.Context, all *sync.WaitGroup) error {
	if h.mountpoints.root == "" {
		return nil
	}
	found, err := fs.Glob(os.DirFS(h.mountpoints.root), snapshotsName+"/*/*/*")
	if err != nil {
		return err
	}
	for _, target := range found {
		target = filepath.Join(h.mountpoints.root, target)
		all.Go(func() {
			dir := filepath.Dir(target)
			name, snapshot := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
			err := h.change(ctx, "close snapshot", name, func(ctx context.Context) error {
				mounted, err := isMount(target)
				d, ok := h.driver.(SnapshotOpener)
				if err != nil || !mounted || !ok {
					return errors.Join(err, dropTarget(target))
				}
				return h.closeSnapshot(ctx, d, name, snapshot, target, target)
			})
			if err != nil {
				h.log.WarnContext(ctx, "rest of a crash cannot be unmounted", slog.String("path", target), slog.Any("error", err))
			}
		})
	}
	return nil
}
