package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// keeping are the mount options with which the kernel does not give back what is reserved. It
// makes the tables of inodes that mkfs has left for later into holes of the image, and a btrfs
// discards by itself.
var keeping = map[string][]string{"ext4": {"noinit_itable", "nodiscard"}, "xfs": {"nodiscard"}, "btrfs": {"nodiscard"}}

// reserve gives a part of a file its blocks. What is there stays.
func reserve(image *os.File, from, to int64) error {
	err := unix.Fallocate(int(image.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(image.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	}
	if err != nil {
		return fmt.Errorf("reserve %d bytes: %w", to-from, err)
	}
	return nil
}

// reserveAll gives an image the blocks that it lacks, all of them or, where there is no room, none.
func reserveAll(image *os.File) error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(image.Fd()), &st), unix.Fstatfs(int(image.Fd()), &fs)); err != nil {
		return err
	}
	lacks := st.Size - st.Blocks*512
	if lacks <= 0 {
		return nil
	}
	if uint64(lacks) > fs.Bavail*uint64(fs.Bsize) {
		return fmt.Errorf("reserve %d bytes: %w", lacks, unix.ENOSPC)
	}
	return reserve(image, 0, st.Size)
}

// span is a part of a file.
type span struct{ from, to int64 }

// fiemap is FS_IOC_FIEMAP, whose numbers package unix does not have (linux/fiemap.h).
const (
	fiemap          = 0xc020660b
	fiemapSync      = 1
	fiemapLast      = 1
	fiemapUnwritten = 0x800
	fiemapExtents   = 256
)

// unwritten returns what a part of a file has blocks for that were never written. The first
// write to such a block has to be committed to the log of the file system that the file is on.
func unwritten(image *os.File, from, to int64) (all []span, err error) {
	for at := from; at < to; {
		q := struct { // struct fiemap
			start, length                  uint64
			flags, mapped, count, reserved uint32
			extents                        [fiemapExtents]struct { // struct fiemap_extent
				logical, physical, length uint64
				_                         [2]uint64
				flags                     uint32
				_                         [3]uint32
			}
		}{start: uint64(at), length: uint64(to - at), flags: fiemapSync, count: fiemapExtents}
		if err := ioctl(image, fiemap, unsafe.Pointer(&q)); err != nil {
			return nil, fmt.Errorf("fiemap: %w", err)
		}
		if q.mapped == 0 {
			break
		}
		for _, e := range q.extents[:q.mapped] {
			if e.flags&fiemapUnwritten != 0 {
				all = append(all, span{max(int64(e.logical), at), min(int64(e.logical+e.length), to)})
			}
			at = int64(e.logical + e.length)
			if e.flags&fiemapLast != 0 {
				return all, nil
			}
		}
	}
	return all, nil
}

// writeOut writes zeros to what a part of a file has blocks for that were never written, which changes
// nothing that is read, and has it on the disk.
func writeOut(ctx context.Context, image *os.File, from, to int64) error {
	spans, err := unwritten(image, from, to)
	if err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
			err = errdefs.Errorf(errdefs.ErrUnsupported, "the file system of the pool does not tell which blocks of a file were written")
		}
		return err
	}
	zeros := make([]byte, 1<<20)
	for _, s := range spans {
		for at := s.from; at < s.to; {
			next := min(at+chunk, s.to)
			for at < next {
				n, err := image.WriteAt(zeros[:min(int64(len(zeros)), next-at)], at)
				if err != nil {
					return err
				}
				at += int64(n)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := image.Sync(); err != nil {
				return err
			}
			// What nobody will read need not stay in memory.
			_ = unix.Fadvise(int(image.Fd()), s.from, next-s.from, unix.FADV_DONTNEED)
		}
	}
	return nil
}
