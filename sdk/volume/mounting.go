package volume

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// Mount mounts the volume for the mount ID id and returns where its data lies. The
// driver is called for the first mount of a volume; every other one is counted, and
// answered with the same directory after a look at whether it still is what it was.
// A mount whose caller has hung up by the time it is made is taken back. One whose answer
// is lost after that counts, as an engine may have read it; where none has, the count is
// forgotten like any other that nobody takes back.
func (h *Handler) Mount(ctx context.Context, name, id string) (mountpoint string, err error) {
	if err := h.options.CheckName(name); err != nil {
		return "", err
	}
	return run(ctx, h, name, bounded.Verb[string]{
		Name:  "mount",
		Limit: h.options.LongTimeout,
		Do:    func(ctx context.Context) (string, error) { return h.mount(ctx, name, id) },
		Undo: func(ctx context.Context, _ string) {
			ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
			defer cancel()
			if err := h.release(ctx, name, id); err != nil {
				h.log.ErrorContext(ctx, "mount that nobody waited for cannot be taken back", slog.String("volume", name),
					slog.String("mount_id", id), slog.Any("error", err))
			}
		},
	})
}

func (h *Handler) mount(ctx context.Context, name, id string) (string, error) {
	if err := h.mayUse(ctx, name); err != nil {
		return "", err
	}
	rec := h.mounts.get(name)
	mountpoint, err := h.standing(ctx, name, rec)
	if err != nil {
		return "", err
	}
	fresh := mountpoint == ""
	if fresh {
		if mountpoint, err = h.attach(ctx, name); err != nil {
			return "", err
		}
	}
	next := rec.with(name, mountpoint, id, rec.Refs[id].Count+1, time.Now())
	if fresh {
		next.Place = placeAt(mountpoint)
	}
	if rec.stale[id] {
		// The engine came back and uses this ID again. Where no container lived on in the
		// meantime, the old mount is forgotten. Where one did, this mount is besides it, and
		// the ID stays under suspicion: an engine that restored a container and then copied
		// from it sends no unmount when it stops (moby volume/mounts: MountPoint.Cleanup).
		if held, known := h.held(ctx, next); known && !held {
			next.Refs[id] = ref{1, next.Refs[id].Since}
			delete(next.stale, id)
		}
	}
	if err := h.mounts.set(next); err != nil {
		if rec.Mountpoint == "" && !errors.Is(err, errStopped) { // else others have it mounted, or may have
			err = errors.Join(err, h.detach(ctx, name, mountpoint))
		}
		return "", err
	}
	h.log.LogAttrs(ctx, slog.LevelDebug, "volume mounted", slog.String("volume", name), slog.String("mount_id", id),
		slog.String("path", mountpoint))
	return mountpoint, nil
}

// attach makes a mountpoint, if the driver has not said that the data lies elsewhere at
// all times, and has the driver mount.
func (h *Handler) attach(ctx context.Context, name string) (string, error) {
	var target string
	if info, _ := h.index.get(name); info.Mountpoint == "" || h.mountpoints.ours(info.Mountpoint) {
		var err error
		if target, err = h.mountpoints.make(name); err != nil {
			return "", err
		}
	}
	mountpoint, err := h.driver.Mount(ctx, name, target)
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			h.index.drop(name)
		}
		return "", errors.Join(err, h.clear(target))
	}
	if mountpoint != target {
		if err := h.clear(target); err != nil {
			return "", errors.Join(err, h.driver.Unmount(ctx, name, mountpoint))
		}
	}
	// A directory of the driver's own it has just looked at; a mount is looked at here.
	err = h.mountpoints.absolute(mountpoint)
	if err == nil && h.mountpoints.ours(mountpoint) {
		_, err = h.mountpoints.check(ctx, mountpoint, place{})
	}
	if err != nil {
		return "", errors.Join(err, h.detach(ctx, name, mountpoint))
	}
	return mountpoint, nil
}

// clear removes a target on which nothing was mounted after all.
func (h *Handler) clear(target string) error {
	if target == "" || h.mounts.ledger.isClosed() {
		return nil
	}
	return h.mountpoints.remove(target)
}

// detach has the driver unmount, and removes the mountpoint. A Handler that is closed
// leaves both to the one that has followed, which may have them in use.
func (h *Handler) detach(ctx context.Context, name, mountpoint string) error {
	if h.mounts.ledger.isClosed() {
		return errStopped
	}
	if err := h.driver.Unmount(ctx, name, mountpoint); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return redact(err, nil)
	}
	return h.mountpoints.remove(mountpoint)
}

// Unmount takes back one mount by id. After the last one the driver unmounts, at once or
// when the volume has lingered. An id that has nothing mounted succeeds.
func (h *Handler) Unmount(ctx context.Context, name, id string) error {
	if err := h.options.CheckName(name); err != nil {
		return err
	}
	_, err := run(ctx, h, name, bounded.Verb[struct{}]{Name: "unmount", Limit: h.options.ShortTimeout, Do: func(ctx context.Context) (struct{}, error) {
		return struct{}{}, h.release(ctx, name, id)
	}})
	return err
}

func (h *Handler) release(ctx context.Context, name, id string) error {
	rec := h.mounts.get(name)
	if rec.Refs[id].Count == 0 {
		return nil
	}
	rec = rec.without(id)
	if len(rec.Refs) > 0 {
		return h.mounts.settle(rec)
	}
	if h.options.Linger > 0 {
		after := context.WithoutCancel(ctx)
		rec.linger = time.AfterFunc(h.options.Linger, func() { h.lingered(after, name) })
		return h.mounts.settle(rec)
	}
	// The count is written only when the unmount is done: it is what a restart would have
	// to take up again.
	err := h.unmount(ctx, name, rec.Mountpoint)
	if h.mounts.get(name).Mountpoint != "" && !errors.Is(err, errStopped) { // it is still mounted, and nobody uses it
		err = errors.Join(err, h.mounts.settle(rec))
	}
	return err
}

// unmount unmounts a volume that nobody uses any more.
func (h *Handler) unmount(ctx context.Context, name, mountpoint string) error {
	if err := h.detach(ctx, name, mountpoint); err != nil {
		return err
	}
	if err := h.mounts.settle(&mounted{record: record{Volume: name}}); err != nil {
		return err
	}
	h.log.LogAttrs(ctx, slog.LevelDebug, "volume unmounted", slog.String("volume", name), slog.String("path", mountpoint))
	return nil
}

// lingered unmounts a volume that was left alone for the time of Linger.
func (h *Handler) lingered(ctx context.Context, name string) {
	if h.mounts.lingered(name) {
		_ = h.tidy(ctx, name) // logged there, and tried again by Reconcile
	}
}

// Path returns where the data of the volume lies now, empty while it is not mounted and
// lies nowhere. It is ErrNotFound for a volume that memory does not have, and
// ErrUnavailable when what was mounted is not there any more.
func (h *Handler) Path(ctx context.Context, name string) (string, error) {
	v, err := h.Get(ctx, name)
	if err != nil {
		return "", err
	}
	if rec := h.mounts.get(name); rec.Mountpoint != "" {
		_, err := h.mountpoints.check(ctx, rec.Mountpoint, rec.Place)
		if err == nil {
			err = h.look(ctx, name, rec.Mountpoint)
		}
		if err != nil {
			return "", named(name, err)
		}
	}
	return v.Mountpoint, nil
}
