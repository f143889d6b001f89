package volume

import (
	"context"
	"fmt"
	"log/slog"

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
		if err := d.Restore(ctx, id, name); err != nil {
			return fmt.Errorf("%q in the trash: %w", id, err)
		}
		return h.made(ctx, name)
	})
}

// Purge destroys what is in the trash.
func (h *Handler) Purge(ctx context.Context, id string) error {
	d, err := can[Trasher](h, keepTrash)
	if err != nil {
		return err
	}
	explain := func(err error) error { return fmt.Errorf("%q in the trash: %w", id, err) }
	_, err = bounded.Run(ctx, h.runner, "trash "+id, bounded.Verb[struct{}]{Name: "purge", Limit: h.options.LongTimeout, Explain: explain,
		Do: func(ctx context.Context) (struct{}, error) { return struct{}{}, redact(d.Purge(ctx, id), nil) }})
	if err == nil {
		h.log.InfoContext(ctx, "volume purged from the trash", slog.String("id", id))
	}
	return err
}

// discard has the driver remove a volume: into its trash, if there is to be one.
func (h *Handler) discard(ctx context.Context, name string) error {
	if d, ok := h.driver.(Trasher); ok && h.options.Trash {
		return d.Trash(ctx, name)
	}
	return h.driver.Remove(ctx, name)
}
