// Package pooldir is what the drivers have in common whose pool is a directory with one for each
// volume: how it is opened and recognised, how what is half made or half deleted is told from a
// volume, a trash, and the memory of which pool it is.
//
//	PATH/.remora-pool.json     which pool this is
//	PATH/NAME/                 a volume
//	PATH/.remora-trash/ID/     a volume in the trash
//	PATH/.remora-new-…         a volume that is being made
//	PATH/.remora-gone-…        a volume that is being deleted
package pooldir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// TrashName is the directory of the pool in which the trash lies. Each volume in it has a
// directory of its own, called by its ID, so that names may come again.
const TrashName = ".remora-trash"

// errNotInTrash is the error for an ID that nothing in the trash has.
var errNotInTrash = errdefs.Errorf(errdefs.ErrNotFound, "no such volume in the trash")

// trashID is the form of an ID: when the volume was removed, in nanoseconds since 1970, and
// what makes it unique. In the order of their IDs the oldest is the first.
var trashID = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{8}$`)

func newTrashID(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%016x-%x", now.UnixNano(), b)
}

// trashPath returns where in the pool the directory of an ID is.
func trashPath(id string) string { return TrashName + "/" + id }

// Trash moves the volume with all that belongs to it into the trash by one rename(2).
func (p *Pool) Trash(ctx context.Context, name string) error {
	dir, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := p.Volume(dir, name); err != nil {
		return err
	}
	if err := p.Unused(ctx, dir, name); err != nil {
		return err
	}
	err = dir.trash(name)
	if errors.Is(err, unix.ENOENT) {
		return ErrNoVolume // another host was faster
	}
	return p.failTrash(err)
}

// failTrash gives what has no class yet one, and says where it happened.
func (p *Pool) failTrash(err error) error {
	if err == nil || errdefs.Class(err) != nil {
		return err
	}
	return p.Fail(TrashName, err)
}

// trash moves a volume into the trash. A name that is not there is ENOENT.
func (d *Dir) trash(name string) error {
	if err := unix.Mkdirat(d.FD, TrashName, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	place := trashPath(newTrashID(time.Now()))
	if err := unix.Mkdirat(d.FD, place, 0o700); err != nil {
		return err
	}
	err := d.move(name, place+"/"+name, func() error {
		if err := d.Sync(place, TrashName); err != nil {
			return err
		}
		return unix.Fsync(d.FD)
	})
	if err != nil {
		_ = unix.Unlinkat(d.FD, place, unix.AT_REMOVEDIR)
	}
	return err
}

// Trashed returns what lies in the trash, the oldest first.
func (p *Pool) Trashed(ctx context.Context) ([]volume.Trashed, error) {
	dir, err := p.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all, err := dir.trashed()
	return all, p.failTrash(err)
}

func (d *Dir) trashed() ([]volume.Trashed, error) {
	ids, err := d.names(TrashName)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	all := make([]volume.Trashed, 0, len(ids))
	for _, id := range ids {
		t, err := d.findTrashed(id)
		if errors.Is(err, errNotInTrash) {
			continue // what a crash left, or a purge
		}
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// findTrashed returns what is in the trash under an ID, or [errNotInTrash].
func (d *Dir) findTrashed(id string) (volume.Trashed, error) {
	m := trashID.FindStringSubmatch(id)
	if m == nil {
		return volume.Trashed{}, errNotInTrash
	}
	nanos, err := strconv.ParseInt(m[1], 16, 64)
	if err != nil {
		return volume.Trashed{}, errNotInTrash
	}
	entries, err := d.names(trashPath(id))
	if errors.Is(err, unix.ENOENT) || err == nil && len(entries) == 0 {
		return volume.Trashed{}, errNotInTrash
	}
	if err != nil {
		return volume.Trashed{}, err
	}
	return volume.Trashed{ID: id, Name: entries[0], RemovedAt: time.Unix(0, nanos).UTC()}, nil
}

// Restore moves a volume out of the trash to a name. One that is taken is ErrExists.
func (p *Pool) Restore(ctx context.Context, id, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	dir, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer dir.Close()
	return p.failTrash(dir.restore(id, name))
}

func (d *Dir) restore(id, name string) error {
	t, err := d.findTrashed(id)
	if err != nil {
		return err
	}
	place := trashPath(id)
	err = d.move(place+"/"+t.Name, name, func() error {
		if err := unix.Fsync(d.FD); err != nil {
			return err
		}
		return d.Sync(place)
	})
	switch {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name"), "restore it under another name, or remove that one first")
	case errors.Is(err, unix.ENOENT):
		return errNotInTrash
	case err != nil:
		return err
	}
	_ = unix.Unlinkat(d.FD, place, unix.AT_REMOVEDIR) // an empty one is nothing in the trash
	return nil
}

// Purge deletes what is in the trash as Remove deletes a volume.
func (p *Pool) Purge(ctx context.Context, id string) error {
	dir, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer dir.Close()
	t, err := dir.findTrashed(id)
	if err != nil {
		return p.failTrash(err)
	}
	if err := p.Unused(ctx, dir, trashPath(id)+"/"+t.Name); err != nil {
		return err
	}
	if err := p.destroy(ctx, dir, trashPath(id)); !errors.Is(err, ErrNoVolume) {
		return err
	}
	return errNotInTrash
}

// names returns what lies in a directory of the pool.
func (d *Dir) names(dir string) ([]string, error) {
	f, err := d.open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}
