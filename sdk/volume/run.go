package volume

import (
	"context"

	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// run runs a verb of the driver, one at a time for each volume, within its limit, and puts
// the volume's name in front of what goes wrong.
func run[T any](ctx context.Context, h *Handler, volume string, v bounded.Verb[T]) (T, error) {
	v.Explain = func(err error) error { return named(volume, err) }
	return bounded.Run(ctx, h.runner, volume, v)
}
