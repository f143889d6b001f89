package dir

import (
	"context"
	"errors"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

var (
	// errOff says that the file system counts nothing.
	errOff = errdefs.Errorf(errdefs.ErrUnsupported, "the file system of the pool does not count what volumes take")
	// errNotCounted says that what a volume takes is not known without looking at all of it.
	errNotCounted = errdefs.Errorf(errdefs.ErrUnsupported, "made before the file system counted; its files are counted one by one, or resize it once")
)

// counting tells whether the file system counts, by the table of mounts: who lists volumes must
// not wait for storage that does not answer, and that counts nothing.
func (d *driver) counting() bool {
	m, ok := d.fileSystem()
	if !ok {
		return false
	}
	counting, _ := quotaIn(m)
	return counting
}

// Usage returns what the file system counts.
func (d *driver) Usage(ctx context.Context, name string) (volume.Usage, error) {
	if !d.counting() {
		return volume.Usage{}, errOff
	}
	p, err := d.pool(ctx)
	if err != nil {
		return volume.Usage{}, err
	}
	defer p.Close()
	return d.usage(p, name)
}

// Survey tells of all volumes, or that nothing is counted.
func (d *driver) Survey(ctx context.Context) iter.Seq2[volume.Figures, error] {
	return func(yield func(volume.Figures, error) bool) {
		if !d.counting() {
			yield(volume.Figures{}, errOff)
			return
		}
		p, err := d.pool(ctx)
		if err != nil {
			yield(volume.Figures{}, err)
			return
		}
		defer p.Close()
		for entries, err := range p.Batches(ctx, batch) {
			if err != nil {
				yield(volume.Figures{}, d.Fail("", err))
				return
			}
			for _, e := range entries {
				if !e.IsDir() || pooldir.CheckName(e.Name()) != nil {
					continue
				}
				f := volume.Figures{Name: e.Name()}
				u, err := d.usage(p, e.Name())
				if err == nil {
					f.Usage = &u
				}
				if (err == nil || errors.Is(err, errdefs.ErrUnsupported)) && !yield(f, nil) {
					return
				}
			}
		}
	}
}

func (d *driver) usage(p pool, name string) (volume.Usage, error) {
	f, err := p.facts(name)
	if err != nil {
		return volume.Usage{}, err
	}
	data, err := p.data(name, f)
	if err != nil {
		return volume.Usage{}, d.Fail(name, err)
	}
	defer data.Close()
	project, err := projectOf(data)
	if err == nil && project == 0 {
		err = errNotCounted
	}
	if err != nil {
		return volume.Usage{}, d.Fail(name, err)
	}
	q, err := quotaOf(p.FD, project)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOSYS) {
		err = errNotCounted
	}
	return volume.Usage{Used: int64(q.blocks) * blockSize, Limit: int64(q.hard) * blockSize}, d.Fail(name, err)
}
