package loop

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// trashName is the directory of the pool in which the trash lies. Each volume in it has a
// directory of its own, called by its ID, so that names may come again.
const trashName = ".remora-trash"

// trashID is the form of an ID: when the volume was removed, in nanoseconds since 1970, and
// what makes it unique.
var trashID = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{8}$`)

var errNotInTrash = errdefs.Errorf(errdefs.ErrNotFound, "no such volume in the trash")

// Trash moves the volume into the trash by one rename(2).
func (d *driver) Trash(ctx context.Context, name string) error {
	p, err := d.pool()
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.facts(name); err != nil {
		return err
	}
	if err := d.unused(ctx, p, name); err != nil {
		return err
	}
	if err := p.Mkdir(trashName, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return d.fail(trashName, err)
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	place := fmt.Sprintf("%s/%016x-%x", trashName, time.Now().UnixNano(), b)
	if err := p.Mkdir(place, 0o700); err != nil {
		return d.fail(place, err)
	}
	if err := p.rename(name, place+"/"+name); err != nil {
		_ = p.Remove(place)
		if errors.Is(err, fs.ErrNotExist) {
			return errNoVolume // another host was faster
		}
		return d.fail(name, err)
	}
	for _, dir := range []string{place, trashName, "."} {
		if err := state.SyncDir(p.Root, dir); err != nil {
			return d.fail(dir, err)
		}
	}
	return nil
}

// Trashed returns what lies in the trash.
func (d *driver) Trashed(context.Context) ([]volume.Trashed, error) {
	p, err := d.pool()
	if err != nil {
		return nil, err
	}
	defer p.close()
	ids, err := p.readDir(trashName)
	if err != nil {
		return nil, d.fail(trashName, err)
	}
	all := make([]volume.Trashed, 0, len(ids))
	for _, e := range ids {
		t, err := p.inTrash(e.Name())
		if errors.Is(err, errNotInTrash) {
			continue // what a crash left, or a purge
		}
		if err != nil {
			return nil, d.fail(trashName, err)
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b volume.Trashed) int { return a.RemovedAt.Compare(b.RemovedAt) })
	return all, nil
}

// inTrash returns what is in the trash under an ID.
func (p *pool) inTrash(id string) (volume.Trashed, error) {
	m := trashID.FindStringSubmatch(id)
	if m == nil {
		return volume.Trashed{}, errNotInTrash
	}
	nanos, err := strconv.ParseInt(m[1], 16, 64)
	if err != nil {
		return volume.Trashed{}, errNotInTrash
	}
	entries, err := p.readDir(trashName + "/" + id)
	if err == nil && len(entries) == 0 {
		err = errNotInTrash
	}
	if err != nil {
		return volume.Trashed{}, err
	}
	return volume.Trashed{ID: id, Name: entries[0].Name(), RemovedAt: time.Unix(0, nanos).UTC()}, nil
}

// Restore moves a volume out of the trash.
func (d *driver) Restore(_ context.Context, id, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	p, err := d.pool()
	if err != nil {
		return err
	}
	defer p.close()
	t, err := p.inTrash(id)
	if err != nil {
		return err
	}
	place := trashName + "/" + id
	err = p.rename(place+"/"+t.Name, name)
	switch {
	case errors.Is(err, fs.ErrExist), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name"), "restore it under another name, or remove that one first")
	case errors.Is(err, fs.ErrNotExist):
		return errNotInTrash
	case err != nil:
		return d.fail(name, err)
	}
	for _, dir := range []string{".", place} {
		if err := state.SyncDir(p.Root, dir); err != nil {
			return d.fail(dir, err)
		}
	}
	_ = p.Remove(place) // an empty one is nothing in the trash
	return nil
}

// Purge deletes what is in the trash as Remove deletes a volume.
func (d *driver) Purge(ctx context.Context, id string) error {
	p, err := d.pool()
	if err != nil {
		return err
	}
	defer p.close()
	t, err := p.inTrash(id)
	if err != nil {
		return err
	}
	if err := d.unused(ctx, p, trashName+"/"+id+"/"+t.Name); err != nil {
		return err
	}
	if err := d.destroy(ctx, p, trashName+"/"+id); !errors.Is(err, errNoVolume) {
		return err
	}
	return errNotInTrash
}
