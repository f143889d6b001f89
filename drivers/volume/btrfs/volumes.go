package btrfs

import (
	"context"
	"errors"
	"io/fs"
	"iter"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// batch is how many entries of the pool are read at a time. It bounds the memory that
// Volumes takes, whatever the number of volumes.
const batch = 4096

// Volumes yields what lies in the pool. A volume whose facts cannot be read is among
// them, with the error in its status. Leftovers of a crash are destroyed meanwhile.
func (d *driver) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		p, err := d.pool(ctx)
		if err != nil {
			yield(volume.Info{}, err)
			return
		}
		defer p.Close()
		var leftovers []string
		adopted := map[string]bool{} // yielded once, whether reading meets the new name or not
		see := func(name string) bool {
			f, err := p.readFacts(name)
			info, ok := d.info(name, f, err)
			return !ok || yield(info, nil)
		}
		for entries, err := range p.Batches(ctx, batch) {
			if err != nil {
				yield(volume.Info{}, d.Fail("", err))
				return
			}
			for _, e := range entries {
				name := e.Name()
				switch d.HiddenKind(name) {
				case pooldir.New, pooldir.Gone:
					leftovers = append(leftovers, name)
					continue
				case pooldir.Adopt:
					if name = d.finishAdoption(ctx, p, name); name == "" {
						continue
					}
					adopted[name] = true
				default:
					if e.Type() != fs.ModeDir || pooldir.CheckName(name) != nil || adopted[name] {
						continue
					}
				}
				if !see(name) {
					return
				}
			}
		}
		d.Sweep(ctx, leftovers)
	}
}

// Inspect returns one volume as Volumes would yield it.
func (d *driver) Inspect(ctx context.Context, name string) (volume.Info, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return volume.Info{}, err
	}
	defer p.Close()
	f, err := p.facts(name)
	if errors.Is(err, errdefs.ErrInvalid) {
		return volume.Info{}, err
	}
	info, ok := d.info(name, f, err)
	if !ok {
		return volume.Info{}, err
	}
	return info, nil
}
