package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// What lies in the directory of a volume.
const (
	factsName     = "volume.json"
	imageName     = "image"
	newImageName  = ".image-new" // what a rollback makes
	snapshotsName = "snapshots"
)

// dataName is the directory in the file system that a container gets: what mkfs makes beside
// it, such as lost+found, is no data of anybody.
const dataName = "data"

const factsVersion = 1

// facts is what is written down of a volume. Its size is not: the image has it. The name of
// the directory counts, not Name, which is there for people who find the file.
type facts struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	FS      string    `json:"fs"`
	// Reserved: all of the image has its room in the pool.
	Reserved bool `json:"reserved,omitzero"`
	// Written: all of it was written when it was made.
	Written bool `json:"written,omitzero"`
	// Whole: the image came from elsewhere, and a container gets all of its file system.
	Whole   bool              `json:"whole,omitzero"`
	Mount   []string          `json:"mount_options,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// dir is which directory of the file system a container gets.
func (f facts) dir() string {
	if f.Whole {
		return "."
	}
	return dataName
}

// facts reads the facts of one volume. A name that has none is ErrNotFound.
func (p pool) facts(name string) (facts, error) {
	if err := pooldir.CheckName(name); err != nil {
		return facts{}, err
	}
	if fi, err := p.Lstat(name); err == nil && !fi.IsDir() {
		return facts{}, pooldir.ErrNoVolume
	}
	var f facts
	err := state.Read(p.Root, name+"/"+factsName, factsVersion, &f)
	switch {
	case err == nil && kinds[f.FS].Name == "":
		err = fmt.Errorf("read %s/%s: %w: file system %q", name, factsName, state.ErrCorrupt, f.FS)
	case errors.Is(err, errdefs.ErrNotFound):
		return f, pooldir.ErrNoVolume
	}
	if err != nil {
		return f, errdefs.Hint(err, "the image is not touched; mend the file, or move it away and create the volume again, which adopts the image")
	}
	return f, nil
}

// image opens the image of a volume or of a snapshot.
func (p pool) image(path string) (*os.File, error) {
	f, err := p.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		if fi, serr := f.Stat(); serr != nil || !fi.Mode().IsRegular() {
			_ = f.Close()
			err = errdefs.Errorf(errdefs.ErrUnavailable, "not a file")
		}
	}
	return f, err
}

// info makes what the Handler sees of a volume, or of the error that reading its facts made.
// ok is false if there is no volume.
func (p pool) info(name string) (info volume.Info, ok bool) {
	f, err := p.facts(name)
	var fi fs.FileInfo
	if err == nil {
		fi, err = p.Lstat(name + "/" + imageName)
	}
	switch {
	case errors.Is(err, pooldir.ErrNoVolume), errors.Is(err, errdefs.ErrInvalid):
		return info, false
	case err != nil:
		return volume.Info{Name: name, CreatedAt: f.Created, Options: f.Options, Status: map[string]any{"error": err.Error()}}, true
	}
	return volume.Info{Name: name, CreatedAt: f.Created, Options: f.Options, Status: map[string]any{
		"fs": f.FS, "size": catalog.Bytes(fi.Size()).String(),
	}}, true
}

// batch is how many entries of the pool are read at a time, and workers how many volumes.
const (
	batch   = 1024
	workers = 8
)

// Volumes yields what lies in the pool. A volume whose facts cannot be read is among them,
// with the error in its status. Leftovers of a crash are deleted meanwhile.
func (d *driver) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		p, err := d.pool(ctx)
		if err != nil {
			yield(volume.Info{}, err)
			return
		}
		defer p.close()
		d.thawOnce.Do(d.thawAll)
		var leftovers []string
		for entries, err := range p.dir.Batches(ctx, batch) {
			if err != nil {
				yield(volume.Info{}, d.Fail("", err))
				return
			}
			infos := make([]volume.Info, len(entries)) // without a name where there is no volume
			var wg sync.WaitGroup
			for w := range min(workers, len(entries)) {
				wg.Go(func() {
					for i := w; i < len(entries); i += workers {
						if e := entries[i]; e.Type() == fs.ModeDir && pooldir.CheckName(e.Name()) == nil {
							infos[i], _ = p.info(e.Name())
						}
					}
				})
			}
			wg.Wait()
			for i, info := range infos {
				if d.HiddenKind(entries[i].Name()) != "" {
					leftovers = append(leftovers, entries[i].Name())
				}
				if info.Name != "" && !yield(info, nil) {
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
	defer p.close()
	if err := pooldir.CheckName(name); err != nil {
		return volume.Info{}, err
	}
	info, ok := p.info(name)
	if !ok {
		return info, pooldir.ErrNoVolume
	}
	return info, nil
}
