// Package pooldir is what the drivers have in common whose pool is a directory with one for
// each volume: a trash, and the memory of which pool it is.
package pooldir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
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

// ErrNotInTrash is the error for an ID that nothing in the trash has.
var ErrNotInTrash = errdefs.Errorf(errdefs.ErrNotFound, "no such volume in the trash")

// trashID is the form of an ID: when the volume was removed, in nanoseconds since 1970, and
// what makes it unique. In the order of their IDs the oldest is the first.
var trashID = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{8}$`)

func newTrashID(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%016x-%x", now.UnixNano(), b)
}

// TrashPath returns where in the pool the directory of an ID is.
func TrashPath(id string) string { return TrashName + "/" + id }

// Trash moves a volume of the pool, an open directory, into the trash by one rename(2). A name
// that is not there is ENOENT, and so it is when another host was faster.
func Trash(pool int, name string) error {
	if err := unix.Mkdirat(pool, TrashName, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	place := TrashPath(newTrashID(time.Now()))
	if err := unix.Mkdirat(pool, place, 0o700); err != nil {
		return err
	}
	if err := rename(pool, name, place+"/"+name); err != nil {
		_ = unix.Unlinkat(pool, place, unix.AT_REMOVEDIR)
		return err
	}
	return sync(pool, place, TrashName, ".")
}

// Trashed returns what lies in the trash, the oldest first.
func Trashed(pool int) ([]volume.Trashed, error) {
	ids, err := names(pool, TrashName)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	all := make([]volume.Trashed, 0, len(ids))
	for _, id := range ids {
		t, err := FindTrashed(pool, id)
		if errors.Is(err, ErrNotInTrash) {
			continue // what a crash left, or a purge
		}
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// FindTrashed returns what is in the trash under an ID, or [ErrNotInTrash].
func FindTrashed(pool int, id string) (volume.Trashed, error) {
	m := trashID.FindStringSubmatch(id)
	if m == nil {
		return volume.Trashed{}, ErrNotInTrash
	}
	nanos, err := strconv.ParseInt(m[1], 16, 64)
	if err != nil {
		return volume.Trashed{}, ErrNotInTrash
	}
	entries, err := names(pool, TrashPath(id))
	if errors.Is(err, unix.ENOENT) || err == nil && len(entries) == 0 {
		return volume.Trashed{}, ErrNotInTrash
	}
	if err != nil {
		return volume.Trashed{}, err
	}
	return volume.Trashed{ID: id, Name: entries[0], RemovedAt: time.Unix(0, nanos).UTC()}, nil
}

// Restore moves what is in the trash under an ID to a name of the pool. One that is taken is
// ErrExists.
func Restore(pool int, id, name string) error {
	t, err := FindTrashed(pool, id)
	if err != nil {
		return err
	}
	switch err := rename(pool, TrashPath(id)+"/"+t.Name, name); {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name"), "restore it under another name, or remove that one first")
	case errors.Is(err, unix.ENOENT):
		return ErrNotInTrash
	case err != nil:
		return err
	}
	err = sync(pool, ".", TrashPath(id))
	_ = unix.Unlinkat(pool, TrashPath(id), unix.AT_REMOVEDIR) // an empty one is nothing in the trash
	return err
}

// rename does not replace.
func rename(pool int, from, to string) error {
	err := unix.Renameat2(pool, from, pool, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // NFS; a plain rename replaces an empty directory, no other
		err = unix.Renameat(pool, from, pool, to)
	}
	return err
}

func open(pool int, dir string) (*os.File, error) {
	fd, err := unix.Openat(pool, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// names returns what lies in a directory of the pool.
func names(pool int, dir string) ([]string, error) {
	f, err := open(pool, dir)
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

// sync brings the names in directories of the pool to the disk.
func sync(pool int, dirs ...string) error {
	for _, dir := range dirs {
		f, err := open(pool, dir)
		if err != nil {
			return err
		}
		err = f.Sync()
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
