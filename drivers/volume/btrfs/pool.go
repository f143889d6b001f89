package btrfs

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pool is the pool's directory, opened for one call.
type pool struct{ *pooldir.Dir }

func (d *driver) pool(ctx context.Context) (pool, error) {
	dir, err := d.Open(ctx)
	return pool{dir}, err
}

// check refuses a directory that lies on no btrfs.
func check(dir *pooldir.Dir, seen bool) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir.FD, &st); err != nil {
		return err
	}
	if int64(st.Type) == superMagic { //nolint:unconvert // 32 bits on some machines
		return nil
	}
	err := errdefs.Errorf(errdefs.ErrUnavailable, "lies on no btrfs")
	if seen {
		return errdefs.Hint(err, "mount the disk that the pool lies on")
	}
	return errdefs.Hint(err, "mount a btrfs there, or leave path away to have one made in an image")
}
