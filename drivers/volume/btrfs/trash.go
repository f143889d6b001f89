package btrfs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// trashName is the directory of the pool in which the trash lies. Each volume in it has a
// directory of its own, called by its ID, so that names may come again.
const trashName = ".remora-trash"

// trashID is the form of an ID: when the volume was removed, in nanoseconds since 1970, and
// what makes it unique. In the order of their IDs the oldest is the first.
var trashID = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{8}$`)

func newTrashID(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%016x-%x", now.UnixNano(), b)
}

var errNotInTrash = errdefs.Errorf(errdefs.ErrNotFound, "no such volume in the trash")

// Trash moves the volume with its snapshots into the trash by one rename(2).
func (d *driver) Trash(ctx context.Context, name string) error {
	p, err := d.pool(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.facts(name); err != nil {
		return err
	}
	if err := p.nothingMounted(name); err != nil {
		return err
	}
	if err := unix.Mkdirat(p.fd, trashName, 0o700); err != nil && err != unix.EEXIST {
		return d.fail(trashName, err)
	}
	place := trashName + "/" + newTrashID(time.Now())
	if err := unix.Mkdirat(p.fd, place, 0o700); err != nil {
		return d.fail(place, err)
	}
	err = unix.Renameat2(p.fd, name, p.fd, place+"/"+name, unix.RENAME_NOREPLACE)
	if err != nil {
		_ = unix.Unlinkat(p.fd, place, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.ENOENT) {
			return errNoVolume // another host was faster
		}
		return d.fail(name, err)
	}
	return d.fail("", p.sync(place, "."))
}

// Trashed returns what lies in the trash.
func (d *driver) Trashed(ctx context.Context) ([]volume.Trashed, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return nil, err
	}
	defer p.close()
	root, err := p.root()
	if err != nil {
		return nil, d.fail("", err)
	}
	ids, err := fs.ReadDir(root.FS(), trashName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, d.fail(trashName, err)
	}
	all := make([]volume.Trashed, 0, len(ids))
	for _, e := range ids {
		if t, err := inTrash(root, e.Name()); err == nil {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b volume.Trashed) int { return a.RemovedAt.Compare(b.RemovedAt) })
	return all, nil
}

// inTrash returns what is in the trash under an ID.
func inTrash(root *os.Root, id string) (volume.Trashed, error) {
	m := trashID.FindStringSubmatch(id)
	if m == nil {
		return volume.Trashed{}, errNotInTrash
	}
	nanos, err := strconv.ParseInt(m[1], 16, 64)
	if err != nil {
		return volume.Trashed{}, errNotInTrash
	}
	entries, err := fs.ReadDir(root.FS(), trashName+"/"+id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 { // what a crash left, or a purge
		return volume.Trashed{}, errNotInTrash
	}
	if err != nil {
		return volume.Trashed{}, err
	}
	return volume.Trashed{ID: id, Name: entries[0].Name(), RemovedAt: time.Unix(0, nanos).UTC()}, nil
}

// trashed opens the pool and finds what is in the trash under an ID.
func (d *driver) trashed(ctx context.Context, id string) (*pool, volume.Trashed, error) {
	p, err := d.pool(ctx)
	if err != nil {
		return nil, volume.Trashed{}, err
	}
	root, err := p.root()
	var t volume.Trashed
	if err == nil {
		t, err = inTrash(root, id)
	}
	if err != nil {
		p.close()
		if errors.Is(err, errNotInTrash) {
			return nil, t, err
		}
		return nil, t, d.fail(trashName, err)
	}
	return p, t, nil
}

// Restore moves a volume out of the trash.
func (d *driver) Restore(ctx context.Context, id, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	p, t, err := d.trashed(ctx, id)
	if err != nil {
		return err
	}
	defer p.close()
	place := trashName + "/" + id
	err = unix.Renameat2(p.fd, place+"/"+t.Name, p.fd, name, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name"), "restore it under another name, or remove that one first")
	case errors.Is(err, unix.ENOENT):
		return errNotInTrash
	case err != nil:
		return d.fail(name, err)
	}
	_ = unix.Unlinkat(p.fd, place, unix.AT_REMOVEDIR) // an empty one is nothing in the trash
	return d.fail("", p.sync("."))
}

// Purge destroys what is in the trash as Remove destroys a volume.
func (d *driver) Purge(ctx context.Context, id string) error {
	p, t, err := d.trashed(ctx, id)
	if err != nil {
		return err
	}
	defer p.close()
	place := trashName + "/" + id
	if err := p.nothingMounted(place + "/" + t.Name); err != nil {
		return err
	}
	return d.destroy(ctx, p, place)
}
