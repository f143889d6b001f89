package machine

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Copy makes dst a copy of the file src, which must not be there: sharing its blocks where
// the file system can, else with its holes. A copy that failed is removed.
func Copy(dst, src string) (err error) {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := to.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(dst)
		}
	}()
	if unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil {
		return nil
	}
	return copySparse(to, from)
}

// copySparse copies what is no hole (lseek(2), SEEK_DATA and SEEK_HOLE).
func copySparse(to, from *os.File) error {
	fi, err := from.Stat()
	if err != nil {
		return err
	}
	for off := int64(0); off < fi.Size(); {
		data, err := unix.Seek(int(from.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		hole := fi.Size()
		if err != nil {
			data = off // a file system that knows no holes
		} else if hole, err = unix.Seek(int(from.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, data), io.NewSectionReader(from, data, hole-data)); err != nil {
			return err
		}
		off = hole
	}
	return to.Truncate(fi.Size())
}
