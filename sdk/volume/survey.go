package volume

import (
	"context"
	"iter"

	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// Figures is what a driver knows of one volume without looking into it.
type Figures struct {
	Name string
	// Usage is as [Sizer] tells; nil where that would be ErrUnsupported.
	Usage *Usage
	// Snapshots is how many [Snapshotter] would list; nil for a driver that is none.
	Snapshots *int
}

// Surveyor is implemented by a [Sizer] or [Snapshotter] that can tell the figures of all
// volumes for much less than the cost of asking for each.
type Surveyor interface {
	// Survey yields the figures of the volumes there are, as they are now and soon. A volume
	// of which it cannot tell is left out, and asked for by itself; names that are no volumes
	// do no harm. An error ends the sequence; what was yielded before it is right. Where the
	// storage can tell of no volume as it is, it is ErrUnsupported, and nobody asks on.
	Survey(ctx context.Context) iter.Seq2[Figures, error]
}

// Survey returns the figures of volumes by name, and with an error those that were told
// before. It is ErrUnsupported where the driver is no [Surveyor].
func (h *Handler) Survey(ctx context.Context) (map[string]Figures, error) {
	d, err := can[Surveyor](h, "tell how large all volumes are")
	if err != nil {
		return nil, err
	}
	ctx, cancel := h.limit(ctx, h.options.ShortTimeout)
	defer cancel()
	type answer struct {
		all map[string]Figures
		err error
	}
	a, err := bounded.Look(ctx, h.runner, func(ctx context.Context) (answer, error) {
		a := answer{all: map[string]Figures{}}
		for f, err := range d.Survey(ctx) {
			if err != nil {
				a.err = err
				break
			}
			a.all[f.Name] = f
		}
		return a, nil
	})
	if err == nil {
		err = a.err
	}
	return a.all, redact(err, nil)
}
