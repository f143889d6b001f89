package volume

import (
	"context"
	"maps"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// OwnOptions are volume options that are the program's and not the driver's, such as "schedule".
// The driver never sees them.
type OwnOptions struct {
	Names []string
	// Check refuses those that are given before anything is made; nil takes all.
	Check func(opts map[string]string) error
	// Keep is told of those that were given when the volume has been made, or adopted. Known says
	// that there was such a volume before: then what is not given is not changed. It may be
	// called again for the same volume.
	Keep func(ctx context.Context, name string, opts map[string]string, known bool) error
}

// withOwn takes the program's own options out of opts for the time of create, which makes or
// adopts the volume.
func (h *Handler) withOwn(ctx context.Context, name string, opts map[string]string, create func(opts map[string]string) error) error {
	o := h.options.Own
	if len(o.Names) == 0 {
		return create(opts)
	}
	own := map[string]string{}
	rest := maps.Clone(opts)
	for _, key := range o.Names {
		if v, ok := rest[key]; ok {
			own[key] = v
			delete(rest, key)
		}
	}
	if o.Check != nil {
		if err := o.Check(own); err != nil {
			return err
		}
	}
	_, known := h.index.get(name)
	if err := create(rest); err != nil {
		return err
	}
	if err := o.Keep(ctx, name, own, known); err != nil {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "made, but its options cannot be kept: %w", err), "create it again, with the same options")
	}
	return nil
}
