package dir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// batch is how many entries of the pool are read at a time. It bounds the memory that
// Volumes takes, whatever the number of volumes.
const batch = 4096

// Volumes yields what lies in the pool. A volume whose facts cannot be read is among
// them, with the error in its status. Leftovers of a crash are deleted meanwhile.
func (d *driver) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		p, err := d.pool(ctx)
		if err != nil {
			yield(volume.Info{}, err)
			return
		}
		defer p.Close()
		var leftovers []string
		infos := make([]volume.Info, 0, batch)
		for entries, err := range p.Batches(ctx, batch) {
			if err != nil {
				yield(volume.Info{}, d.Fail("", err))
				return
			}
			names := make([]string, 0, len(entries))
			for _, e := range entries {
				switch {
				case d.HiddenKind(e.Name()) != "":
					leftovers = append(leftovers, e.Name())
				case e.Type() == fs.ModeDir && pooldir.CheckName(e.Name()) == nil:
					names = append(names, e.Name())
				}
			}
			for _, info := range d.readAll(p, names, infos) {
				if info.Name != "" && !yield(info, nil) {
					return
				}
			}
		}
		d.Sweep(ctx, leftovers)
	}
}

// workers is how many facts are read at a time: enough for the processors when the
// files are in memory, and for the queue of a disk when they are not.
const workers = 8

// readAll reads the facts of many volumes. An Info without a name is no volume.
func (d *driver) readAll(p pool, names []string, infos []volume.Info) []volume.Info {
	const grain = 64 // names that a worker takes at a time
	infos = infos[:len(names)]
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, (len(names)+grain-1)/grain) {
		wg.Go(func() {
			buf := new(factsBuffer)
			for {
				end := int(next.Add(grain))
				for i := end - grain; i < min(end, len(names)); i++ {
					f, err := p.readFacts(names[i], buf)
					infos[i], _ = d.info(names[i], f, err)
				}
				if end >= len(names) {
					return
				}
			}
		})
	}
	wg.Wait()
	return infos
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
