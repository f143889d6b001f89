package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep subvolumes and directories around them are nested that are
// destroyed.
const maxDepth = 64

// demolish destroys what has the name in the pool, which may be nothing: subvolumes whole,
// other directories entry by entry.
func (p pool) demolish(ctx context.Context, name string) error {
	if err := p.NothingMounted(name); err != nil {
		return err
	}
	if err := demolish(ctx, p.FD, name, 0); err != nil {
		return fmt.Errorf("destroy %s: %w", name, err)
	}
	return nil
}

func demolish(ctx context.Context, parent int, name string, depth int) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if depth > maxDepth {
		return unix.ELOOP
	}
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := openDir(parent, name)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	if isSubvol(fd) {
		return gone(subvolDestroy(parent, name))
	}
	for {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		entries, err := dir.Readdirnames(512)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for _, entry := range entries {
			if err := demolish(ctx, fd, entry, depth+1); err != nil {
				return fmt.Errorf("%s: %w", entry, err)
			}
		}
		if len(entries) == 0 {
			return gone(unix.Unlinkat(parent, name, unix.AT_REMOVEDIR))
		}
	}
}

// gone makes an error of nothing where somebody else was faster.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
