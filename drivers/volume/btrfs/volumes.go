package btrfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"

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
		defer p.close()
		var leftovers []string
		adopted := map[string]bool{} // yielded once, whether reading meets the new name or not
		see := func(name string) bool {
			f, err := p.readFacts(name)
			info, ok := d.info(name, f, err)
			return !ok || yield(info, nil)
		}
		for {
			if err := ctx.Err(); err != nil {
				yield(volume.Info{}, err)
				return
			}
			entries, err := p.dir.ReadDir(batch)
			if err != nil && !errors.Is(err, io.EOF) {
				yield(volume.Info{}, d.fail("", err))
				return
			}
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				name := e.Name()
				if leftover.MatchString(name) {
					if !strings.HasPrefix(name, ".remora-"+adoptKind) {
						leftovers = append(leftovers, name)
						continue
					}
					if name = d.finishAdoption(ctx, p, name); name == "" {
						continue
					}
					adopted[name] = true
				} else if e.Type() != fs.ModeDir || checkName(name) != nil || adopted[name] {
					continue
				}
				if !see(name) {
					return
				}
			}
		}
		d.sweep(ctx, leftovers)
	}
}

// Inspect returns one volume as Volumes would yield it.
func (d *driver) Inspect(ctx context.Context, name string) (volume.Info, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return volume.Info{}, err
	}
	defer p.close()
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
