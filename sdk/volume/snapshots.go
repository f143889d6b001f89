package volume

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// can returns the driver as one that can do more, or ErrUnsupported.
func can[T any](h *Handler, what string) (T, error) {
	d, ok := h.driver.(T)
	if !ok {
		return d, errdefs.Errorf(errdefs.ErrUnsupported, "the driver cannot %s", what)
	}
	return d, nil
}

// Can tells whether the driver implements an interface of this package, such as
// [Snapshotter].
func Can[T any](h *Handler) bool {
	_, ok := h.driver.(T)
	return ok
}

// Usage returns how much of the storage the volume takes. It is ErrUnsupported where the
// driver does not know.
func (h *Handler) Usage(ctx context.Context, name string) (Usage, error) {
	if err := h.options.CheckName(name); err != nil {
		return Usage{}, err
	}
	d, err := can[Sizer](h, "tell how large a volume is")
	if err != nil {
		return Usage{}, named(name, err)
	}
	ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
	defer cancel()
	u, err := bounded.Look(ctx, h.runner, func(ctx context.Context) (Usage, error) { return d.Usage(ctx, name) })
	return u, named(name, redact(err, nil))
}

// Resize sets the limit of a volume in bytes, whether it is mounted or not.
func (h *Handler) Resize(ctx context.Context, name string, size int64) error {
	d, err := can[Resizer](h, "change the size of a volume")
	if err != nil {
		return named(name, err)
	}
	if size <= 0 {
		return named(name, errdefs.Errorf(errdefs.ErrInvalid, "size %d: not more than nothing", size))
	}
	return h.change(ctx, "resize", name, func(ctx context.Context) error { return d.Resize(ctx, name, size) })
}

// CreateSnapshot keeps the volume as it is now under a name. One that has the name already is
// ErrExists.
func (h *Handler) CreateSnapshot(ctx context.Context, name, snapshot string, labels map[string]string) error {
	d, err := can[Snapshotter](h, "make snapshots")
	if err == nil {
		err = checkSnapshot(snapshot)
	}
	if err != nil {
		return named(name, err)
	}
	return h.change(ctx, "snapshot", name, func(ctx context.Context) error {
		if err := h.mayUse(ctx, name); err != nil {
			return ofSnapshot(snapshot, err)
		}
		if err := d.CreateSnapshot(ctx, name, snapshot, labels); err != nil {
			return ofSnapshot(snapshot, err)
		}
		h.log.InfoContext(ctx, "snapshot created", slog.String("volume", name), slog.String("snapshot", snapshot))
		return nil
	})
}

// CreateSnapshots keeps several volumes as they are at one and the same moment, all under one name, or none. It
// is ErrUnsupported where the driver, or its storage, cannot. The error is about all of them.
func (h *Handler) CreateSnapshots(ctx context.Context, names []string, snapshot string, labels map[string]string) error {
	d, err := can[GroupSnapshotter](h, "make snapshots of several volumes at once")
	if err == nil {
		err = checkSnapshot(snapshot)
	}
	for _, name := range names {
		if err == nil {
			err = h.options.CheckName(name)
		}
	}
	if err != nil {
		return err
	}
	names = slices.Compact(slices.Sorted(slices.Values(names))) // who waits for several does so in one order
	if len(names) == 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "snapshot %q: of no volume", snapshot)
	}
	_, err = bounded.Run(ctx, h.runner, names[0], bounded.Verb[struct{}]{Name: "snapshot", Limit: h.options.LongTimeout, Also: names[1:], Do: func(ctx context.Context) (struct{}, error) {
		for _, name := range names {
			if err := h.mayUse(ctx, name); err != nil {
				return struct{}{}, named(name, ofSnapshot(snapshot, err))
			}
		}
		if err := d.CreateSnapshots(ctx, names, snapshot, labels); err != nil {
			return struct{}{}, ofSnapshot(snapshot, redact(err, nil))
		}
		h.log.InfoContext(ctx, "snapshots of one moment created", slog.Any("volumes", names), slog.String("snapshot", snapshot))
		return struct{}{}, nil
	}})
	return err
}

// Snapshots returns the snapshots of a volume, the oldest first.
func (h *Handler) Snapshots(ctx context.Context, name string) ([]Snapshot, error) {
	if err := h.options.CheckName(name); err != nil {
		return nil, err
	}
	d, err := can[Snapshotter](h, "make snapshots")
	if err != nil {
		return nil, named(name, err)
	}
	ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
	defer cancel()
	all, err := bounded.Look(ctx, h.runner, func(ctx context.Context) ([]Snapshot, error) { return d.Snapshots(ctx, name) })
	return all, named(name, redact(err, nil))
}

// RemoveSnapshot destroys a snapshot; ErrNotFound where there is none.
func (h *Handler) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	d, err := can[Snapshotter](h, "make snapshots")
	if err == nil {
		err = checkSnapshot(snapshot)
	}
	if err != nil {
		return named(name, err)
	}
	return h.change(ctx, "remove snapshot", name, func(ctx context.Context) error {
		if err := d.RemoveSnapshot(ctx, name, snapshot); err != nil {
			return ofSnapshot(snapshot, err)
		}
		h.log.InfoContext(ctx, "snapshot removed", slog.String("volume", name), slog.String("snapshot", snapshot))
		return nil
	})
}

// Rollback makes the data of a volume that of a snapshot. It is ErrInUse while the volume is
// mounted.
func (h *Handler) Rollback(ctx context.Context, name, snapshot string) error {
	d, err := can[Rollbacker](h, "roll a volume back")
	if err == nil {
		err = checkSnapshot(snapshot)
	}
	if err != nil {
		return named(name, err)
	}
	return h.change(ctx, "rollback", name, func(ctx context.Context) error {
		if err := h.mayUse(ctx, name); err != nil {
			return err
		}
		if err := h.unused(ctx, name); err != nil {
			return err
		}
		if err := d.Rollback(ctx, name, snapshot); err != nil {
			return ofSnapshot(snapshot, err)
		}
		h.log.InfoContext(ctx, "volume rolled back", slog.String("volume", name), slog.String("snapshot", snapshot))
		return nil
	})
}

// change runs a verb that changes a volume, one at a time.
func (h *Handler) change(ctx context.Context, verb, name string, do func(context.Context) error) error {
	if err := h.options.CheckName(name); err != nil {
		return err
	}
	_, err := run(ctx, h, name, bounded.Verb[struct{}]{Name: verb, Limit: h.options.LongTimeout, Do: func(ctx context.Context) (struct{}, error) {
		return struct{}{}, redact(do(ctx), nil)
	}})
	return err
}

// checkSnapshot refuses what is no name of a snapshot; the rules are those of volumes.
func checkSnapshot(snapshot string) error { return checkName("snapshot", snapshot) }

func ofSnapshot(snapshot string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("snapshot %q: %w", snapshot, err)
}
