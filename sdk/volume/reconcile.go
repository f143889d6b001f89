package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// Activated is called when an engine found the plugin, which a Docker engine does once
// in its life: what was mounted before may be held by nobody any more.
func (h *Handler) Activated(ctx context.Context) {
	h.mounts.expire()
	h.log.InfoContext(ctx, "activated by an engine")
}

// refreshLoop keeps memory and world together until ctx ends. A driver that could not be
// listed yet is asked again sooner.
func (h *Handler) refreshLoop(ctx context.Context) {
	h.Reconcile(ctx)
	for {
		wait := h.options.Refresh
		if _, loaded := h.index.list(); !loaded {
			wait = min(wait, 2*time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		start := time.Now()
		err := h.RefreshNow(ctx)
		took := time.Since(start)
		if err != nil && ctx.Err() == nil {
			h.log.WarnContext(ctx, "volumes cannot be listed", slog.Any("error", err))
		}
		h.Reconcile(ctx)
		if err != nil {
			continue // the time went into waiting, and the storage may be back any moment
		}
		// A listing that takes long is made seldom: a twentieth of the time at most.
		select {
		case <-ctx.Done():
			return
		case <-time.After(20*took - h.options.Refresh):
		}
	}
}

// RefreshNow lists the driver's volumes into memory: what came and went behind the
// Handler's back is seen from then on. Until it returns nil, memory is as it was. One
// listing runs at a time; the next waits until the driver has really ended it.
func (h *Handler) RefreshNow(ctx context.Context) error {
	ctx, cancel := h.limit(ctx, h.options.LongTimeout)
	defer cancel()
	select {
	case h.listing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("volumes: the last listing has not ended: %w", context.Cause(ctx))
	}
	since := h.index.begin()
	defer h.index.end()
	all, err := bounded.Look(ctx, h.runner, func(ctx context.Context) ([]Info, error) {
		defer func() { <-h.listing }()
		var all []Info
		for info, err := range h.driver.Volumes(ctx) {
			if err != nil {
				return nil, err
			}
			if h.options.CheckName(info.Name) == nil {
				all = append(all, info)
			}
		}
		return all, nil
	})
	if err != nil {
		return fmt.Errorf("volumes: %w", redact(err, nil))
	}
	for _, name := range h.index.merge(since, all, func(name string) bool { return h.mounts.get(name).Mountpoint != "" }) {
		h.log.InfoContext(ctx, "volume has gone", slog.String("volume", name))
	}
	return nil
}

// dropOrphans unmounts what lies below the mount root without a word in the ledger: a crash
// came between the mount and the word. It returns a channel that is closed when all have
// been dealt with, which for storage that hangs takes until the limit of an unmount.
func (h *Handler) dropOrphans(ctx context.Context) (done <-chan struct{}, err error) {
	found, err := h.mountpoints.found()
	if err != nil {
		return nil, err
	}
	var all sync.WaitGroup
	if err := h.dropSnapshots(ctx, &all); err != nil {
		return nil, err
	}
	for _, name := range found {
		if p := h.mountpoints.path(name); h.mounts.get(name).Mountpoint != p {
			all.Go(func() { h.dropOrphan(ctx, name, p) })
		}
	}
	dealt := make(chan struct{})
	h.background.Go(func() { all.Wait(); close(dealt) })
	return dealt, nil
}

// dropOrphan unmounts what lies at a volume's mountpoint p, unless the volume is mounted by
// then: it has the volume's lock, as every other call for it.
func (h *Handler) dropOrphan(ctx context.Context, name, p string) {
	dropped, err := run(ctx, h, name, bounded.Verb[bool]{Name: "unmount", Limit: h.options.ShortTimeout, Do: func(ctx context.Context) (bool, error) {
		if h.mounts.get(name).Mountpoint == p {
			return false, nil
		}
		if mounted, err := isMount(p); err != nil || !mounted {
			return true, errors.Join(err, h.mountpoints.remove(p))
		}
		return true, h.detach(ctx, name, p)
	}})
	switch {
	case err != nil:
		h.log.WarnContext(ctx, "rest of a crash cannot be unmounted", slog.String("path", p), slog.Any("error", err))
	case dropped:
		h.log.InfoContext(ctx, "rest of a crash unmounted", slog.String("path", p))
	}
}

// Reconcile looks at every mounted volume, forgets mounts from before a restart that no
// container holds, and unmounts what nobody uses. It returns a line for each volume that
// it changed or could not put right, and runs by itself every [Options.Refresh].
func (h *Handler) Reconcile(ctx context.Context) (changes []string) {
	for _, name := range h.mounts.names() {
		before := h.mounts.get(name)
		settled := len(before.Refs) > 0 && len(before.stale) == 0 && !before.unwritten
		if settled || before.linger != nil || ctx.Err() != nil {
			continue
		}
		if err := h.tidy(ctx, name); err != nil {
			changes = append(changes, err.Error())
			continue
		}
		after := h.mounts.get(name)
		if n := before.total() - after.total(); n > 0 {
			changes = append(changes, fmt.Sprintf("volume %q: %d mounts that no container holds forgotten", name, n))
		}
		if before.Mountpoint != "" && after.Mountpoint == "" {
			changes = append(changes, fmt.Sprintf("volume %q: unmounted, nobody uses it", name))
		}
	}
	return changes
}

// tidy brings one volume's mounts in order, and unmounts it when nobody is left.
func (h *Handler) tidy(ctx context.Context, name string) error {
	_, err := run(ctx, h, name, bounded.Verb[struct{}]{Name: "unmount", Limit: h.options.ShortTimeout, Do: func(ctx context.Context) (struct{}, error) {
		if err := h.dropStale(ctx, name, h.options.MountGrace); err != nil {
			return struct{}{}, err
		}
		rec := h.mounts.get(name)
		if len(rec.Refs) > 0 || rec.Mountpoint == "" {
			if rec.unwritten {
				return struct{}{}, h.mounts.settle(rec.clone())
			}
			return struct{}{}, nil
		}
		return struct{}{}, h.unmount(ctx, name, rec.Mountpoint)
	}})
	if err != nil && ctx.Err() == nil {
		h.log.WarnContext(ctx, "mounts cannot be brought in order", slog.Any("error", err))
	}
	return err
}

// removeGrace is MountGrace for a Remove, whose caller waits and knows of no container: as
// long as an engine takes at most from the answer to Mount to a container that shows the
// volume. Another engine's activation, which Podman makes with each command, makes that
// mount stale in the meantime.
const removeGrace = 10 * time.Second

// dropStale forgets the stale mounts of a volume that are older than grace, if it is
// certain that nobody holds the volume. The caller has the volume's lock.
func (h *Handler) dropStale(ctx context.Context, name string, grace time.Duration) error {
	rec := h.mounts.get(name)
	if len(rec.stale) == 0 {
		return nil
	}
	next := rec.clone()
	for id := range rec.stale {
		if time.Since(rec.Refs[id].Since) >= grace {
			delete(next.Refs, id)
			delete(next.stale, id)
		}
	}
	if len(next.Refs) == len(rec.Refs) {
		return nil
	}
	if held, known := h.held(ctx, rec); held || !known {
		return nil
	}
	h.log.InfoContext(ctx, "mounts that no container holds are forgotten", slog.String("volume", name),
		slog.Int("count", rec.total()-next.total()))
	return h.mounts.set(next)
}
