package dir

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Where the file system of a pool counts what projects take, the data directory of each volume is
// one (project.go), which the inode remembers, and the file system its limit. Quota may be turned
// on at any time, by a mount, so whether it is on is found out for each use.

// minSize is the least that a volume may be limited to.
const minSize = 64 << 10

// fileSize rounds up to what file systems give out.
func fileSize(size int64) int64 { return (size + 4095) &^ 4095 }

// errNoQuota is for a limit that nobody would keep.
func (d *driver) errNoQuota() error {
	err := errdefs.Errorf(errdefs.ErrUnsupported, "size: the file system of %s keeps no project quota", d.Path)
	return errdefs.Hint(err, d.Advice().Mend)
}

// begin makes the empty data directory in dir a project, where that is counted, with the limit of
// f, if it has one.
func (d *driver) begin(dir int, f facts) error {
	counting, enforcing := projectQuotas(dir)
	if f.Size > 0 && !enforcing {
		return d.errNoQuota()
	}
	if !counting {
		return nil
	}
	data, err := openBelow(dir, dataName)
	if err != nil {
		return err
	}
	defer data.Close()
	project, err := newProject(dir)
	if err != nil {
		return orDenied(err)
	}
	if err := assign(int(data.Fd()), project); err != nil || f.Size == 0 {
		return err
	}
	return orDenied(setLimit(dir, project, f.Size))
}

func orDenied(err error) error {
	if errors.Is(err, unix.EPERM) {
		return errdefs.Hint(errdefs.As(errdefs.ErrDenied, err), "give the daemon the capability CAP_SYS_ADMIN, which quota wants")
	}
	return err
}

// data opens the data directory of a volume that lies in the pool.
func (p pool) data(name string, f facts) (*os.File, error) {
	if f.Mountpoint != "" {
		return nil, errdefs.Errorf(errdefs.ErrUnsupported, "its data lies at %s, outside the pool", f.Mountpoint)
	}
	top, err := openBelow(p.FD, name)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	return openBelow(int(top.Fd()), dataName)
}

// hold puts the limit of a volume that was limited in force, where it is not: the pool may have
// been carried to another file system.
func (d *driver) hold(ctx context.Context, p pool, name string, f facts) error {
	if f.Size == 0 || f.Mountpoint != "" {
		return nil
	}
	if _, enforcing := projectQuotas(p.FD); !enforcing {
		d.Log.WarnContext(ctx, "volume is not kept to its size", slog.String("volume", name), slog.Any("error", d.errNoQuota()))
		return nil
	}
	data, err := p.data(name, f)
	if err != nil {
		return err
	}
	defer data.Close()
	project, err := projectOf(data)
	if err == nil && project != 0 {
		var q diskQuota
		if q, err = quotaOf(p.FD, project); err == nil && q.hard == uint64(f.Size)/blockSize {
			return nil
		}
	}
	if err == nil {
		if project, err = enclose(ctx, data); err == nil {
			err = setLimit(p.FD, project, f.Size)
		}
	}
	return orDenied(err)
}

// takeIn makes the data that a volume is made of a project, if it is to be limited.
func (d *driver) takeIn(ctx context.Context, p pool, f facts) error {
	if f.Size == 0 {
		return nil
	}
	if _, enforcing := projectQuotas(p.FD); !enforcing {
		return d.errNoQuota()
	}
	data, err := p.data(f.Name, f)
	if err != nil {
		return err
	}
	defer data.Close()
	project, err := enclose(ctx, data)
	if err != nil {
		return orDenied(err)
	}
	if err := d.fits(ctx, data, f); err != nil {
		return err
	}
	return orDenied(setLimit(p.FD, project, f.Size))
}

// fits looks whether a data directory holds no more than it may: some file systems let this
// process write what they let no other (CAP_SYS_RESOURCE).
func (d *driver) fits(ctx context.Context, data *os.File, f facts) error {
	if f.Size == 0 {
		return nil
	}
	project, err := projectOf(data)
	if err != nil {
		return err
	}
	used, err := d.held(ctx, data, project, f.Size)
	if err == nil && used > f.Size {
		return errdefs.Errorf(errdefs.ErrInvalid, "size %s: less than the %s that is there", catalog.Bytes(f.Size), catalog.Bytes(used))
	}
	return err
}

// release takes the limit off what is to be deleted, so that nothing of it remains: a volume, or
// what was an entry of the trash, with the volume in it.
func release(parent int, name string) error {
	top, err := openBelow(parent, name)
	if err != nil {
		return nil // no directory, or gone
	}
	defer top.Close()
	if data, err := openBelow(int(top.Fd()), dataName); err == nil {
		defer data.Close()
		return releaseData(data)
	}
	entries, err := top.ReadDir(-1)
	if errors.Is(err, unix.ENOENT) {
		return nil // deleted by somebody else meanwhile
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		sub, err := openBelow(int(top.Fd()), e.Name())
		if err != nil {
			continue
		}
		data, err := openBelow(int(sub.Fd()), dataName)
		_ = sub.Close()
		if err != nil {
			continue
		}
		err = releaseData(data)
		_ = data.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func releaseData(data *os.File) error {
	project, err := projectOf(data)
	if err != nil || project == 0 {
		return err
	}
	q, err := quotaOf(int(data.Fd()), project)
	if err != nil || q.hard == 0 {
		return nil //nolint:nilerr // no quota is kept here any more
	}
	return setLimit(int(data.Fd()), project, 0)
}

// Resize sets the limit, and writes it down before.
func (d *driver) Resize(ctx context.Context, name string, size int64) error {
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	f, err := p.facts(name)
	if err != nil {
		return err
	}
	if size < minSize {
		return errdefs.Errorf(errdefs.ErrInvalid, "size %s: less than %s", catalog.Bytes(size), catalog.Bytes(minSize))
	}
	size = fileSize(size)
	data, err := p.data(name, f)
	if err != nil {
		return d.Fail(name, err)
	}
	defer data.Close()
	if _, enforcing := projectQuotas(p.FD); !enforcing {
		return d.errNoQuota()
	}
	project, err := projectOf(data)
	if err == nil && project == 0 || f.Size == 0 {
		project, err = enclose(ctx, data)
	}
	if err != nil {
		return d.Fail(name, err)
	}
	used, err := d.held(ctx, data, project, size)
	if err != nil {
		return d.Fail(name, err)
	}
	if size < used {
		err := errdefs.Errorf(errdefs.ErrInvalid, "size %s: less than the %s that it holds", catalog.Bytes(size), catalog.Bytes(used))
		return errdefs.Hint(err, "delete files first")
	}
	if f.Size != size {
		root, err := p.Root()
		if err != nil {
			return d.Fail("", err)
		}
		f.Size = size
		if err := state.Write(root, name+"/"+factsName, factsVersion, f); err != nil {
			return d.Fail("", err)
		}
		d.see(name, f, nil)
	}
	return d.Fail(name, orDenied(setLimit(p.FD, project, size)))
}

// remove deletes what has the name in the pool, and its limit.
func (d *driver) remove(ctx context.Context, dir *pooldir.Dir, name string) error {
	if err := release(dir.FD, name); err != nil {
		return d.Fail(name, err)
	}
	return deleteTree(ctx, dir.FD, name)
}
