package rbd

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Find returns images that are not ours: those that people made, and REX-Ray, which calls them
// POOL.NAME to its users.
func (p *provider) Find(ctx context.Context, ref string) (all []block.Foreign, err error) {
	err = p.do(ctx, "Find", func(ctx context.Context) error {
		rows, err := p.rows(ctx)
		if err != nil {
			return err
		}
		ref = strings.TrimPrefix(ref, p.spec(""))
		rows = slices.DeleteFunc(rows, func(r row) bool {
			return r.Snapshot != "" || strings.HasPrefix(r.Image, ours) ||
				ref != "" && ref != r.Image && ref != r.ID && ref != p.c.Pool+"."+r.Image
		})
		all, err = each(ctx, rows, p.foreign)
		return err
	})
	return all, err
}

func (p *provider) foreign(ctx context.Context, r row) (f block.Foreign, ok bool, err error) {
	i, err := p.info(ctx, r.Image)
	if err != nil {
		return f, false, err
	}
	m, err := p.meta(ctx, r.Image)
	if err != nil {
		return f, false, err
	}
	watching, err := p.watchers(ctx, r.Image)
	if err != nil {
		return f, false, err
	}
	f = block.Foreign{Name: r.Image, Disk: block.Disk{
		ID: r.ID, Size: r.Size, State: block.Ready, Tags: block.Tags(m), Facts: map[string]string{"image": r.Image},
	}}
	if slices.Contains(i.Features, "journaling") {
		f.State = "journaled or mirrored, which the lock of a host does not go together with"
	}
	if len(watching) > 0 {
		f.State = block.State("open by " + strings.Join(watching, ", "))
		f.Holders = []block.Holder{{Host: watching[0], State: block.Attached}}
	}
	return f, true, nil
}

// Adopt takes an image in: under the name that ours have, without the features that do not go
// together with a host's lock, and with our tags, which come last.
func (p *provider) Adopt(ctx context.Context, f block.Foreign, tags block.Tags) error {
	return p.do(ctx, "Adopt", func(ctx context.Context) error {
		image := f.Facts["image"]
		locks, err := p.locks(ctx, image)
		if err != nil {
			return p.missing(f.ID, err)
		}
		if len(locks) > 0 {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "image %s is locked by %s", image, locks[0].holder().Host), "rbd lock ls "+p.spec(image))
		}
		i, err := p.info(ctx, image)
		if err != nil {
			return p.missing(f.ID, err)
		}
		var off []string
		for _, feature := range []string{"fast-diff", "object-map", "exclusive-lock"} { // in this order
			if slices.Contains(i.Features, feature) {
				off = append(off, feature)
			}
		}
		if len(off) > 0 {
			if _, err := p.rbd(ctx, append([]string{"feature", "disable", p.spec(image)}, off...)...); err != nil {
				return err
			}
		}
		to := imageName(tags)
		if _, err := p.rbd(ctx, "rename", p.spec(image), p.spec(to)); err != nil {
			return err
		}
		p.names.Store(f.ID, to)
		return p.write(ctx, to, written{Made: time.Now().UTC().Truncate(time.Second), Was: image, Tags: tags})
	})
}
