package btrfs

import (
	"encoding/binary"
	"errors"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the kernel that this driver makes (include/uapi/linux/btrfs.h, loop.h). They
// have been stable for years, answer in one step and say what went wrong by errno; the
// program btrfs prints texts for people, which change.
const (
	iocResize            = 0x50009403 // _IOW(0x94, 3, vol_args)
	iocSubvolCreate      = 0x5000940e // _IOW(0x94, 14, vol_args)
	iocSnapDestroy       = 0x5000940f // _IOW(0x94, 15, vol_args)
	iocTreeSearchV2      = 0xc0709411 // _IOWR(0x94, 17, search_args_v2)
	iocSnapCreateV2      = 0x50009417 // _IOW(0x94, 23, vol_args_v2)
	iocSubvolSet         = 0x4008941a // _IOW(0x94, 26, u64)
	iocDevInfo           = 0xd000941e // _IOWR(0x94, 30, dev_info_args)
	iocQuotaCtl          = 0xc0109428 // _IOWR(0x94, 40, quota_ctl_args)
	iocQgroupLimit       = 0x8030942b // _IOR(0x94, 43, qgroup_limit_args)
	iocQuotaRescan       = 0x4040942c // _IOW(0x94, 44, quota_rescan_args)
	iocQuotaRescanStatus = 0x8040942d // _IOR(0x94, 45, quota_rescan_args)
	iocSubvolInfo        = 0x81f8943c // _IOR(0x94, 60, get_subvol_info_args)
	iocSnapDestroyV2     = 0x5000943f // _IOW(0x94, 63, vol_args_v2)
	iocLoopCapacity      = 0x4c07     // LOOP_SET_CAPACITY
	iocLoopGetFree       = 0x4c82     // LOOP_CTL_GET_FREE
)

const (
	superMagic       = 0x9123683e // of statfs(2)
	rootInode        = 256        // of every subvolume's top directory
	subvolReadOnly   = 1 << 1
	specByID         = 1 << 4
	quotaEnable      = 1
	limitReferenced  = 1
	nocowFlag        = 0x00800000 // FS_NOCOW_FL of FS_IOC_SETFLAGS
	compressProperty = "btrfs.compression"
)

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		runtime.KeepAlive(arg)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// volArgs names something in the directory of the call (struct btrfs_ioctl_vol_args).
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgs2 is struct btrfs_ioctl_vol_args_v2. Its name is also a number, where flags have
// specByID.
type volArgs2 struct {
	fd      int64
	transid uint64
	flags   uint64
	_       [4]uint64
	name    [4040]byte
}

func named(dst []byte, name string) error {
	if len(name) > unix.NAME_MAX {
		return unix.ENAMETOOLONG
	}
	copy(dst, name)
	return nil
}

// subvolCreate makes an empty subvolume called name in the directory parent.
func subvolCreate(parent int, name string) error {
	var args volArgs
	if err := named(args.name[:], name); err != nil {
		return err
	}
	return ioctl(parent, iocSubvolCreate, unsafe.Pointer(&args))
}

// snapshot makes one of the subvolume that is open as source, called name in the directory
// parent. The kernel brings what was written to the source before to the disk, and the
// snapshot with it: it is there and durable, or not there.
func snapshot(parent int, name string, source int, readOnly bool) error {
	args := volArgs2{fd: int64(source)}
	if readOnly {
		args.flags = subvolReadOnly
	}
	if err := named(args.name[:], name); err != nil {
		return err
	}
	return ioctl(parent, iocSnapCreateV2, unsafe.Pointer(&args))
}

// subvolDestroy takes away the subvolume called name in the directory parent, and all
// those that were made inside of it. The kernel frees the room later.
func subvolDestroy(parent int, name string) error {
	fd, err := openDir(parent, name)
	if err != nil {
		return err
	}
	info, err := subvolInfo(fd)
	if err == nil {
		err = destroyInside(fd, info.id, 0)
	}
	_ = unix.Close(fd)
	if err != nil {
		return err
	}
	var args volArgs
	if err := named(args.name[:], name); err != nil {
		return err
	}
	return ioctl(parent, iocSnapDestroy, unsafe.Pointer(&args))
}

// destroyInside destroys the subvolumes that lie in the subvolume id, whose top directory
// is open as fd if it is the first.
func destroyInside(fd int, id uint64, depth int) error {
	if depth > maxDepth {
		return unix.ELOOP
	}
	children, err := subvolsIn(fd, id)
	if err != nil || len(children) == 0 {
		return err
	}
	if depth == 0 {
		var writable uint64
		if err := ioctl(fd, iocSubvolSet, unsafe.Pointer(&writable)); err != nil {
			return err
		}
	}
	for _, child := range children {
		if err := destroyInside(fd, child, depth+1); err != nil {
			return err
		}
		args := volArgs2{flags: specByID}
		binary.NativeEndian.PutUint64(args.name[:], child)
		if err := ioctl(fd, iocSnapDestroyV2, unsafe.Pointer(&args)); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// subvol is what the kernel says of a subvolume.
type subvol struct {
	id   uint64
	made time.Time
}

// subvolInfo tells of the subvolume in which the open file lies.
func subvolInfo(fd int) (subvol, error) {
	var args [504]byte
	if err := ioctl(fd, iocSubvolInfo, unsafe.Pointer(&args)); err != nil {
		return subvol{}, err
	}
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(args[at:]) }
	return subvol{
		id:   u64(0),
		made: time.Unix(int64(u64(392)), int64(binary.NativeEndian.Uint32(args[400:]))).UTC(),
	}, nil
}

// isSubvol tells whether what is open is the top directory of a subvolume.
func isSubvol(fd int) bool {
	var st unix.Stat_t
	var fs unix.Statfs_t
	return unix.Fstat(fd, &st) == nil && st.Ino == rootInode && st.Mode&unix.S_IFMT == unix.S_IFDIR &&
		unix.Fstatfs(fd, &fs) == nil && int64(fs.Type) == superMagic //nolint:unconvert // 32 bits on some machines
}

// openDir opens a directory in another one, without following a symbolic link or entering
// what is mounted there, which is EXDEV.
func openDir(parent int, path string) (int, error) {
	return unix.Openat2(parent, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
}

// setNocow turns copying on write off, or on again, for files that will be made in the
// directory that is open, or for the empty file that is.
func setNocow(fd int, on bool) error {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	if on {
		flags |= nocowFlag
	} else {
		flags &^= nocowFlag
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
}

// deviceSize returns how much of its device the file system at fd takes.
func deviceSize(fd int) (int64, error) {
	var args [4096]byte
	binary.NativeEndian.PutUint64(args[:], 1) // the first device; an image has no other
	if err := ioctl(fd, iocDevInfo, unsafe.Pointer(&args)); err != nil {
		return 0, err
	}
	return int64(binary.NativeEndian.Uint64(args[32:])), nil
}

// growToDevice makes the file system at fd as large as its device.
func growToDevice(fd int) error {
	var args volArgs
	copy(args.name[:], "max")
	return ioctl(fd, iocResize, unsafe.Pointer(&args))
}
