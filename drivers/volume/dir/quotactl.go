package dir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the kernel about projects and their quota (quotactl(2), ioctl_xfs_fsgetxattr(2)).
// Those that XFS brought along are understood by ext4 as well.
const (
	projectQuota = 2                   // PRJQUOTA
	xGetQuota    = 'X'<<8 + 3          // Q_XGETQUOTA
	xSetLimit    = 'X'<<8 + 4          // Q_XSETQLIM
	xGetState    = 'X'<<8 + 8          // Q_XGETQSTATV
	stateVersion = 1                   // FS_QSTATV_VERSION1
	counts       = 1 << 4              // FS_QUOTA_PDQ_ACCT
	enforces     = 1 << 5              // FS_QUOTA_PDQ_ENFD
	blockLimits  = 1<<2 | 1<<3         // FS_DQ_BSOFT, FS_DQ_BHARD
	blockSize    = 512                 // of the numbers in diskQuota
	getAttr      = uintptr(0x801c581f) // FS_IOC_FSGETXATTR
	setAttr      = uintptr(0x401c5820) // FS_IOC_FSSETXATTR
	inherit      = 0x200               // FS_XFLAG_PROJINHERIT
	freeBlocks   = uintptr(0x8080583a) // XFS_IOC_FREE_EOFBLOCKS
	freeProject  = 1 << 3              // XFS_EOF_FLAGS_PRID
)

// diskQuota is struct fs_disk_quota.
type diskQuota struct {
	version, flags       int8
	fields               uint16
	id                   uint32
	hard, soft           uint64 // in blocks
	inodeHard, inodeSoft uint64
	blocks, inodes       uint64 // used
	_                    [56]byte
}

// quotaState is struct fs_quota_statv.
type quotaState struct {
	version int8
	_       uint8
	flags   uint16
	_       [252]byte
}

// inodeAttr is struct fsxattr.
type inodeAttr struct {
	flags, _, _, project, _ uint32
	_                       [8]byte
}

// freeArgs is struct xfs_fs_eofblocks.
type freeArgs struct {
	version, flags uint32
	_, _           uint32 // user, group
	project, _     uint32
	_              uint64
	_              [12]uint64
}

// quotactl asks about the file system on which the open file lies, or changes something there.
func quotactl(fd int, command, id uint32, arg unsafe.Pointer) error {
	command = command<<8 | projectQuota
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command), uintptr(id), uintptr(arg), 0, 0)
	if errno == unix.ENOSYS { // before Linux 5.14, or no quota there at all
		device, err := deviceOf(fd)
		if err != nil {
			return unix.ENOSYS
		}
		_, _, errno = unix.Syscall6(unix.SYS_QUOTACTL, uintptr(command), uintptr(unsafe.Pointer(device)), uintptr(id), uintptr(arg), 0, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// deviceOf returns the name of the block device on which the open file lies.
func deviceOf(fd int) (*byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))) //nolint:unconvert // 32 bits on some machines
	if err != nil {
		return nil, err
	}
	return unix.BytePtrFromString("/dev/" + filepath.Base(link))
}

// projectQuotas tells whether the file system counts what projects take, and keeps them to
// their limits.
func projectQuotas(fd int) (counting, enforcing bool) {
	s := quotaState{version: stateVersion}
	if quotactl(fd, xGetState, 0, unsafe.Pointer(&s)) != nil {
		return false, false
	}
	return s.flags&counts != 0, s.flags&enforces != 0
}

// quotaOf returns what is known of a project. One that nothing is known of has nothing.
func quotaOf(fd int, project uint32) (diskQuota, error) {
	var q diskQuota
	err := quotactl(fd, xGetQuota, project, unsafe.Pointer(&q))
	if errors.Is(err, unix.ENOENT) {
		return diskQuota{}, nil
	}
	return q, err
}

// setLimit limits a project to size bytes, or with 0 no more.
func setLimit(fd int, project uint32, size int64) error {
	q := diskQuota{version: 1, flags: projectQuota, fields: blockLimits, id: project, hard: uint64(size) / blockSize}
	return quotactl(fd, xSetLimit, project, unsafe.Pointer(&q))
}

func attrOf(fd int) (a inodeAttr, err error) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getAttr, uintptr(unsafe.Pointer(&a)))
	if errno != 0 {
		err = errno
	}
	return a, err
}

func (a inodeAttr) set(fd int) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setAttr, uintptr(unsafe.Pointer(&a)))
	if errno != 0 {
		return errno
	}
	return nil
}
