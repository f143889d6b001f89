package filesystem

import (
	"context"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The calls by which the programs resize2fs, xfs_growfs and "btrfs filesystem resize" grow a
// file system that is mounted. They take any directory of it, and need no name for it.
const (
	ext4ResizeFS   = 0x40086610 // EXT4_IOC_RESIZE_FS
	xfsGeometry    = 0x8070587c // XFS_IOC_FSGEOMETRY_V4
	xfsGrowData    = 0x4010586e // XFS_IOC_FSGROWFSDATA
	btrfsResize    = 0x50009403 // BTRFS_IOC_RESIZE
	btrfsNameBytes = 4088
)

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// Grow makes a mounted file system as large as its device. One that is so already stays as it
// is. dir is any directory of it.
func (k Kind) Grow(dir *os.File, size int64) (err error) {
	switch k.Name {
	case "ext4":
		var st unix.Statfs_t
		if err = unix.Fstatfs(int(dir.Fd()), &st); err == nil {
			blocks := uint64(size / st.Bsize)
			err = ioctl(dir, ext4ResizeFS, unsafe.Pointer(&blocks))
		}
	case "xfs":
		var g struct { // struct xfs_fsop_geom_v4
			blockSize, _, _, _, _, _, _, maxInodes uint32
			dataBlocks                             uint64
			_                                      [72]byte
		}
		if err = ioctl(dir, xfsGeometry, unsafe.Pointer(&g)); err != nil {
			break
		}
		in := struct { // struct xfs_growfs_data
			blocks    uint64
			maxInodes uint32
			_         uint32
		}{blocks: uint64(size) / uint64(g.blockSize), maxInodes: g.maxInodes}
		if in.blocks > g.dataBlocks {
			err = ioctl(dir, xfsGrowData, unsafe.Pointer(&in))
		}
	case "btrfs":
		var args struct { // struct btrfs_ioctl_vol_args
			fd   int64
			name [btrfsNameBytes]byte
		}
		copy(args.name[:], "max")
		err = ioctl(dir, btrfsResize, unsafe.Pointer(&args))
	}
	if err != nil {
		return state.Classify(fmt.Errorf("grow %s: %w", k.Name, err))
	}
	return nil
}

// MinGap is below what an ext4 leaves unused at the end, where a group of blocks would be too
// small to be worth it. Nothing is tried for so little.
const MinGap = 8 << 20

// GrowUnmounted makes an ext4 that is not mounted as large as its device: it needs no capability
// then.
func (k Kind) GrowUnmounted(ctx context.Context, device string) error {
	_, err := run.Output(ctx, nil, "e2fsck", "-f", "-p", device)
	if mendedBy(err) {
		_, err = run.Output(ctx, nil, "resize2fs", device)
	}
	if err != nil && errdefs.Class(err) == nil {
		err = errdefs.As(errdefs.ErrUnavailable, err)
	}
	return k.Hint(err)
}
