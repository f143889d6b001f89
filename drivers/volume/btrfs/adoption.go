package btrfs

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
)

// finishAdoption gives a volume its name whose adoption a crash cut off after the user's
// subvolume had moved in. It returns the name, empty if there is none to give.
func (d *driver) finishAdoption(ctx context.Context, p pool, aside string) string {
	fd, err := openDir(p.FD, aside)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return "" // under way
	}
	f, err := p.readFacts(aside)
	if err == nil {
		err = pooldir.CheckName(f.Name)
	}
	data, derr := openDir(fd, dataName)
	if derr == nil {
		_ = unix.Close(data)
	} else if errors.Is(derr, unix.ENOENT) {
		_ = unix.Unlinkat(fd, factsName, 0) // nothing had moved yet
		_ = unix.Unlinkat(p.FD, aside, unix.AT_REMOVEDIR)
		return ""
	}
	if err == nil {
		err = unix.Renameat2(p.FD, aside, p.FD, f.Name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		d.Log.WarnContext(ctx, "a subvolume that was to become a volume stays aside", slog.String("path", d.Path+"/"+aside), slog.Any("error", err))
		return ""
	}
	return f.Name
}
