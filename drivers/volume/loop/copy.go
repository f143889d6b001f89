package loop

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// chunk is how much is copied between two looks at the context.
const chunk = 16 << 20

// share makes dst a file with the blocks of src (ioctl_ficlone(2)).
func share(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// copySparse copies what is not a hole (lseek(2), SEEK_DATA and SEEK_HOLE).
func copySparse(ctx context.Context, dst, src *os.File) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < fi.Size(); {
		data, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		hole := fi.Size()
		if err != nil {
			data = off // a file system that knows no holes
		} else if hole, err = unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		for off = data; off < hole; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := min(hole-off, chunk)
			if _, err := io.CopyBuffer(io.NewOffsetWriter(dst, off), io.NewSectionReader(src, off, n), buf); err != nil {
				return err
			}
			off += n
		}
	}
	return dst.Truncate(fi.Size())
}
