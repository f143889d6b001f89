package volume

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

const keepTrash = "keep what is removed"

// Trashed returns what is in the trash, the oldest first.
func (h *Handler) Trashed(ctx context.Context) ([]Trashed, error) {
	d, err := can[Trasher](h, keepTrash)
	if err != nil {
		return nil, err
	}
	ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
	defer cancel()
	all, err := bounded.Look(ctx, h.runner, d.Trashed)
	return all, redact(err, nil)
}

// Restore makes a volume of what is in the trash. A name that is taken is ErrExists.
func (h *Handler) Restore(ctx context.Context, id, name string) error {
	d, err := can[Trasher](h, keepTrash)
	if err != nil {
		return named(name, err)
	}
	return h.change(ctx, "restore", name, func(ctx context.Context) error {
		free, err := h.runner.Lock(ctx, inTrash(id))
		if err != nil {
			return errdefs.Errorf(errdefs.ErrInUse, "%q in the trash: it is being restored or purged", id)
		}
		defer free()
		if err := d.Restore(ctx, id, name); err != nil {
			return fmt.Errorf("%q in the trash: %w", id, err)
		}
		return h.made(ctx, name)
	})
}

// inTrash is what locks a volume in the trash; no volume has a name with a blank in it.
func inTrash(id string) string { return "trash " + id }

// Purge destroys what is in the trash.
func (h *Handler) Purge(ctx context.Context, id string) error {
	d, err := can[Trasher](h, keepTrash)
	if err != nil {
		return err
	}
	explain := func(err error) error { return fmt.Errorf("%q in the trash: %w", id, err) }
	_, err = bounded.Run(ctx, h.runner, inTrash(id), bounded.Verb[struct{}]{Name: "purge", Limit: h.options.LongTimeout, Explain: explain,
		Do: func(ctx context.Context) (struct{}, error) { return struct{}{}, redact(d.Purge(ctx, id), nil) }})
	if err == nil {
		h.log.InfoContext(ctx, "volume purged from the trash", slog.String("id", id))
	}
	return err
}

// Destroy is Remove without a trash: what it removes cannot be brought back.
func (h *Handler) Destroy(ctx context.Context, name string) error {
	return h.change(ctx, "destroy", name, func(ctx context.Context) error { return h.remove(ctx, name, h.driver.Remove) })
}

// Space returns how much room there is where the driver keeps its volumes. It is
// ErrUnsupported where the driver does not know.
func (h *Handler) Space(ctx context.Context) (Space, error) {
	d, err := can[Spacer](h, "tell how much room there is")
	if err != nil {
		return Space{}, err
	}
	ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
	defer cancel()
	s, err := bounded.Look(ctx, h.runner, d.Space)
	return s, redact(err, nil)
}

// discard has the driver remove a volume: into its trash, if there is to be one.
func (h *Handler) discard(ctx context.Context, name string) error {
	if d, ok := h.driver.(Trasher); ok && h.options.Trash {
		return d.Trash(ctx, name)
	}
	return h.driver.Remove(ctx, name)
}
