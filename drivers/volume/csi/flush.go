package csi

import (
	"context"
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
)

// flush writes out what is mounted here of a volume.
func (d *driver) flush(ctx context.Context, name string) error {
	v, ok := d.store.find(name)
	if !ok {
		return nil
	}
	_, n := d.store.see(v)
	if n.Phase != phasePublished {
		return nil
	}
	target := filepath.Join(n.Dir, "t")
	if m, err := topmost(target); err != nil || m == nil {
		return err
	}
	if err := d.looks.alive(ctx, target); errors.Is(err, errDead) {
		return nil
	} else if err != nil {
		return err
	}
	fd, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return state.Classify(err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
		return state.Classify(err)
	}
	return nil
}
