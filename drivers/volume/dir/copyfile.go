package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// chunk is how much is copied between two looks at the context.
const chunk = 16 << 20

// copyFile copies a regular file with everything that belongs to it.
func copyFile(ctx context.Context, fromDir, toDir int, name string) error {
	src, err := unix.Openat(fromDir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("changed while it was copied")
	}
	dst, err := unix.Openat(toDir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = copyData(ctx, src, dst, st.Size)
	if err == nil {
		err = copyMeta(src, dst, &st)
	}
	if cerr := unix.Close(dst); err == nil {
		err = cerr
	}
	return err
}

// copyData shares the blocks if the file system can, or copies what is not a hole
// (lseek(2), SEEK_DATA and SEEK_HOLE).
func copyData(ctx context.Context, src, dst int, size int64) error {
	if unix.IoctlFileClone(dst, src) == nil {
		return nil
	}
	for off := int64(0); off < size; {
		data, err := unix.Seek(src, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		hole := size
		if err != nil {
			data = off // a file system that knows no holes
		} else if hole, err = unix.Seek(src, data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := copyRange(ctx, src, dst, data, min(hole, size)); err != nil {
			return err
		}
		off = hole
	}
	return unix.Ftruncate(dst, size)
}

// copyRange copies the bytes from off up to end, in the kernel if it can.
func copyRange(ctx context.Context, src, dst int, off, end int64) error {
	var buf []byte
	for off < end {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if buf == nil {
			in, out := off, off
			n, err := unix.CopyFileRange(src, &in, dst, &out, int(min(end-off, chunk)), 0)
			if err == nil && n > 0 {
				off += int64(n)
				continue
			}
			if err == unix.ENOSPC || err == unix.EDQUOT || err == unix.EIO {
				return err
			}
			buf = make([]byte, 1<<20) // across file systems, or one that cannot
		}
		n, err := unix.Pread(src, buf[:min(end-off, int64(len(buf)))], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // the file became shorter
		}
		for part := buf[:n]; len(part) > 0; {
			w, err := unix.Pwrite(dst, part, off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if w == 0 {
				return io.ErrShortWrite
			}
			part, off = part[w:], off+int64(w)
		}
	}
	return nil
}

// copyMeta gives a file or directory owner, attributes, mode and times of another, in
// this order: a change of owner takes capabilities and set-user-ID away.
func copyMeta(src, dst int, st *unix.Stat_t) error {
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyAttributes(src, dst); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", dst), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// copyAttributes copies extended attributes (xattr(7)), access control lists and
// capabilities among them. Those that the system gives to each file by its own rules
// are left to it.
func copyAttributes(src, dst int) error {
	list, err := sized(func(b []byte) (int, error) { return unix.Flistxattr(src, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil || len(list) == 0 {
		return err
	}
	for raw := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		name := string(raw)
		switch name {
		case "security.selinux", "security.ima", "security.evm", "security.SMACK64":
			continue
		}
		val, err := sized(func(b []byte) (int, error) { return unix.Fgetxattr(src, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err == nil {
			err = unix.Fsetxattr(dst, name, val, 0)
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

// sized calls a function that fills a buffer, first to learn how large it must be.
func sized(fill func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := fill(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = fill(buf)
		if errors.Is(err, unix.ERANGE) {
			continue // grew meanwhile
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
