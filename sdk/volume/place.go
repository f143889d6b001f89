package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/bounded"
)

// place is a directory as the kernel knows it. Whatever is mounted on the directory, or
// taken away from it, makes it another. The zero place is one that nobody has looked at.
type place struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// placeAt looks at a mountpoint that was just made; what cannot be looked at is unknown.
func placeAt(mountpoint string) place {
	var st syscall.Stat_t
	if syscall.Stat(mountpoint, &st) != nil {
		return place{}
	}
	return place{uint64(st.Dev), st.Ino} //nolint:unconvert // 32 bits on some machines
}

func placeOf(fi fs.FileInfo) place {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return place{uint64(st.Dev), st.Ino} //nolint:unconvert // 32 bits on some machines
	}
	return place{}
}

// standing returns where the volume is mounted, and nothing where the driver has to
// mount it first: at the beginning, when the mount has gone, and when it is the driver's
// own and nobody knows any more what it was.
func (h *Handler) standing(ctx context.Context, name string, rec *mounted) (mountpoint string, err error) {
	if rec.Mountpoint == "" {
		return "", nil
	}
	gone, err := h.mountpoints.check(ctx, rec.Mountpoint, rec.Place)
	switch {
	case gone:
		h.log.WarnContext(ctx, "mount has gone, mounting again", slog.String("volume", name), slog.Any("error", err))
		return "", nil
	case err != nil:
		return "", err
	case rec.Place == (place{}) && !h.mountpoints.ours(rec.Mountpoint):
		return "", nil
	}
	return rec.Mountpoint, h.look(ctx, name, rec.Mountpoint)
}

// look asks a driver that knows more of its mounts than the kernel does.
func (h *Handler) look(ctx context.Context, name, mountpoint string) error {
	l, ok := h.driver.(Looker)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statTime, fmt.Errorf("no answer within %s", statTime))
	defer cancel()
	_, err := bounded.Look(ctx, h.runner, func(ctx context.Context) (struct{}, error) { return struct{}{}, l.Look(ctx, name, mountpoint) })
	if err != nil {
		return errdefs.Errorf(errdefs.ErrUnavailable, "mountpoint %q: %w", mountpoint, redact(err, nil))
	}
	return nil
}

// held asks whether a container uses the volume. The look at the mount tables begins at
// the mountpoint: where what was mounted has gone from there, a container may have it
// all the same, and nobody can tell. A mountpoint of ours is removed after the unmount
// alone, so what had it has gone.
func (h *Handler) held(ctx context.Context, rec *mounted) (held, known bool) {
	if h.mountpoints.ours(rec.Mountpoint) {
		if _, err := resolve(rec.Mountpoint); errors.Is(err, fs.ErrNotExist) {
			return false, true
		}
	} else if rec.Place != (place{}) {
		if _, err := h.mountpoints.check(ctx, rec.Mountpoint, rec.Place); err != nil { // it is another one, or does not answer
			return false, false
		}
	}
	return h.options.Held(ctx, rec.Mountpoint)
}
