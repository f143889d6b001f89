package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Replace gives the name of a volume to the volume with, which is not there any more under its
// own. What had the name before comes into the trash; there need be none. Neither may be
// mounted. What a crash cut off is finished when it is called again: until then the one, the
// other or both are in the trash, each whole. Where with is neither a volume nor in the trash
// it is ErrNotFound, and nothing is changed.
func (h *Handler) Replace(ctx context.Context, name, with string) error {
	d, err := can[Trasher](h, keepTrash)
	if err == nil {
		err = h.options.CheckName(with)
	}
	if err == nil && with == name {
		err = errdefs.Errorf(errdefs.ErrInvalid, "cannot be replaced by itself")
	}
	if err != nil {
		return named(name, err)
	}
	return h.change(ctx, "replace", name, func(ctx context.Context) error {
		free, err := h.lockSoon(ctx, with)
		if err != nil {
			return errdefs.Errorf(errdefs.ErrInUse, "volume %q: something is done with it", with)
		}
		defer free()
		return h.replace(ctx, d, name, with)
	})
}

// The end of a lingering mount, or a look at the mounts, has a volume for a moment.
const (
	lockTime  = 10 * time.Second
	lockAgain = 5 * time.Millisecond
)

// lockSoon locks a second volume, beside the one that a verb has, and waits a little for it.
func (h *Handler) lockSoon(ctx context.Context, name string) (unlock func(), err error) {
	for end := time.Now().Add(lockTime); ; {
		if unlock, err = h.runner.Lock(ctx, name); err == nil || ctx.Err() != nil || time.Now().After(end) {
			return unlock, err
		}
		time.Sleep(lockAgain)
	}
}

func (h *Handler) replace(ctx context.Context, d Trasher, name, with string) error {
	if h.options.MayRemove != nil {
		if err := h.options.MayRemove(ctx, name); err != nil {
			return err
		}
	}
	if err := h.unused(ctx, name); err != nil {
		return err
	}
	if err := h.unused(ctx, with); err != nil {
		return fmt.Errorf("volume %q: %w", with, err)
	}
	// An engine that asks meanwhile is told of the volume that was there: to hear of none it
	// would take as the end of it.
	defer h.index.pin(name)()
	id, err := h.putAside(ctx, d, with)
	if err != nil {
		return fmt.Errorf("volume %q: %w", with, err)
	}
	free, err := h.runner.Lock(ctx, inTrash(id))
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInUse, "%q in the trash: it is being restored or purged", id)
	}
	defer free()
	if err := d.Trash(ctx, name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return errors.Join(fmt.Errorf("into the trash: %w", err), d.Restore(context.WithoutCancel(ctx), id, with))
	}
	if err := d.Restore(ctx, id, name); err != nil {
		ctx = context.WithoutCancel(ctx)
		if old, ferr := newestTrashed(ctx, d, name); ferr == nil && old != "" {
			err = errors.Join(err, d.Restore(ctx, old, name), d.Restore(ctx, id, with))
		}
		return fmt.Errorf("%q in the trash: %w", id, err)
	}
	h.index.drop(with)
	h.log.InfoContext(ctx, "volume replaced", slog.String("volume", name), slog.String("with", with))
	return h.made(ctx, name)
}

// putAside brings a volume into the trash, where it may be already, and returns its ID there.
func (h *Handler) putAside(ctx context.Context, d Trasher, name string) (id string, err error) {
	err = d.Trash(ctx, name)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return "", fmt.Errorf("into the trash: %w", err)
	}
	id, ferr := newestTrashed(ctx, d, name)
	switch {
	case ferr != nil:
		return "", ferr
	case id == "" && err != nil:
		return "", err
	case id == "":
		return "", errdefs.Errorf(errdefs.ErrUnavailable, "brought into the trash, and not there")
	}
	return id, nil
}

// newestTrashed returns the ID of what came into the trash last under a name; empty is none.
func newestTrashed(ctx context.Context, d Trasher, name string) (id string, err error) {
	all, err := d.Trashed(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range slices.Backward(all) {
		if t.Name == name {
			return t.ID, nil
		}
	}
	return "", nil
}
