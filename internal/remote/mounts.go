package remote

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// At returns the topmost mount at a mountpoint by the table of mounts alone, so that it
// never waits for a server. ok is false if nothing is mounted there.
func At(mountpoint string) (found mount.Info, ok bool, err error) {
	mounts, err := mount.List(mountpoint)
	if err != nil {
		return found, false, errdefs.As(errdefs.ErrUnavailable, err)
	}
	for _, m := range mounts {
		if m.Mountpoint == mountpoint {
			found, ok = m, true
		}
	}
	return found, ok, nil
}

// Unmount takes away all that is mounted at a mountpoint. What answers is unmounted in
// order, and is ErrInUse while files in it are open. What does not is only taken out of
// sight (umount2(2), MNT_DETACH): a program that has it open goes on to get errors from
// it, and what lies below the mountpoint is not what it writes to.
func (x *Looks) Unmount(ctx context.Context, mountpoint string) error {
	for {
		_, ok, err := At(mountpoint)
		if err != nil || !ok {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if x.At(ctx, mountpoint) != nil {
			err = Detach(mountpoint)
		} else {
			err = unmount(ctx, mountpoint)
		}
		if err != nil {
			return err
		}
	}
}

// Detach takes the topmost mount at a mountpoint out of sight, whether it answers or not.
func Detach(mountpoint string) error {
	switch err := unix.Unmount(mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
	case nil, unix.EINVAL, unix.ENOENT:
		return nil
	default:
		return state.Classify(err)
	}
}

// unmount is for what has just answered. Where it stops to do so in the meantime, it is
// taken out of sight.
func unmount(ctx context.Context, mountpoint string) error {
	done := make(chan error, 1)
	go func() { done <- mount.Unmount(mountpoint) }()
	ctx, cancel := context.WithTimeout(ctx, LookTime)
	defer cancel()
	select {
	case err := <-done:
		if errors.Is(err, errdefs.ErrInUse) {
			return errdefs.Hint(err, "a process of the host, outside of containers, has files open there: fuser -vm "+mountpoint)
		}
		return err
	case <-ctx.Done():
		return Detach(mountpoint)
	}
}
