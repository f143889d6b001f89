package volume

import (
	"context"
	"errors"
	"log/slog"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Mover is implemented by a driver that can bring a volume to another place of its storage.
type Mover interface {
	// Move brings a volume, which is not mounted, to another place, with its data and its
	// name. After a crash it is here or there, and asked for again it goes on. One that is
	// there already is a success.
	Move(ctx context.Context, name string, to Place) error
}

// Place is where a volume is to be. What is empty is as it is, or left to the driver.
type Place struct {
	// Zone is a zone of the region.
	Zone string
	// Region is another region: that of a pool with the same driver.
	Region string
	// Pool is the name of another pool with the same driver.
	Pool string
}

// Move brings a volume to another place. It is ErrInUse while the volume is mounted.
func (h *Handler) Move(ctx context.Context, name string, to Place) error {
	d, err := can[Mover](h, "move volumes")
	if errors.Is(err, errdefs.ErrUnsupported) {
		err = errdefs.Hint(err, "back it up, and restore it in the other pool: remora backup create, remora backup restore --help")
	}
	if err == nil && to == (Place{}) {
		err = errdefs.Errorf(errdefs.ErrInvalid, "where to move it is not said: want a zone, a region or a pool")
	}
	if err != nil {
		return named(name, err)
	}
	return h.change(ctx, "move", name, func(ctx context.Context) error {
		if err := h.mayUse(ctx, name); err != nil {
			return err
		}
		if leaves := to.Region != "" || to.Pool != ""; leaves && h.options.MayRemove != nil {
			if err := h.options.MayRemove(ctx, name); err != nil {
				return err
			}
		}
		if err := h.unused(ctx, name); err != nil {
			return err
		}
		if err := d.Move(ctx, name, to); err != nil {
			return err
		}
		h.log.InfoContext(ctx, "volume moved", slog.String("volume", name), slog.Any("to", to))
		return h.moved(ctx, name)
	})
}

// moved has the volume be known as it is now, or not any more where it left the pool.
func (h *Handler) moved(ctx context.Context, name string) error {
	err := h.made(ctx, name)
	if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	h.index.drop(name)
	if h.options.Removed != nil {
		h.options.Removed(ctx, name)
	}
	return nil
}
