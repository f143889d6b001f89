package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of xfs that open a file by its handle (xfs_fs.h, open_by_fshandle(3)).
const (
	xfsFDToHandle   = 0xc038586a // XFS_IOC_FD_TO_HANDLE
	xfsOpenByHandle = 0xc038586b // XFS_IOC_OPEN_BY_HANDLE
	xfsHandleBytes  = 24
)

// xfsHandleRequest is struct xfs_fsop_handlereq.
type xfsHandleRequest struct {
	fd      uint32
	path    uintptr
	flags   uint32
	in      *[xfsHandleBytes]byte
	inSize  uint32
	out     *[xfsHandleBytes]byte
	outSize *uint32
}

// unstamped opens an image again so that writing to it leaves its times alone, which on xfs is
// so for a file that was opened by its handle. Otherwise the times of the image are new after
// each write, and each flush of the file system in it, which is an fsync of the image, has to
// commit them to the log outside: with two flushes more. What has to be in the log for the data
// to be found, such as new blocks, is flushed as ever. nil where it cannot be done.
func unstamped(image *os.File) *os.File {
	if !onXFS(image) {
		return nil
	}
	var handle [xfsHandleBytes]byte
	size := uint32(len(handle))
	get := xfsHandleRequest{fd: uint32(image.Fd()), out: &handle, outSize: &size}
	if ioctl(image, xfsFDToHandle, unsafe.Pointer(&get)) != nil || size != xfsHandleBytes {
		return nil
	}
	dir, err := os.Open(filepath.Dir(image.Name())) // any directory says which file system
	if err != nil {
		return nil
	}
	defer dir.Close()
	open := xfsHandleRequest{flags: unix.O_RDWR | unix.O_LARGEFILE, in: &handle, inSize: size}
	// The kernel knows no O_CLOEXEC here. A program that inherits the file keeps it locked.
	syscall.ForkLock.RLock()
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), xfsOpenByHandle, uintptr(unsafe.Pointer(&open)))
	if errno == 0 {
		unix.CloseOnExec(int(fd))
	}
	syscall.ForkLock.RUnlock()
	if errno != 0 {
		return nil
	}
	again := os.NewFile(fd, image.Name())
	if !sameFile(image, again) {
		_ = again.Close()
		return nil
	}
	return again
}

// sameFile tells whether two open files are one, and have one path: that of a file that was
// opened by a handle may be unknown to the kernel, and [find] goes by it.
func sameFile(a, b *os.File) bool {
	fa, aerr := a.Stat()
	fb, berr := b.Stat()
	if aerr != nil || berr != nil || !os.SameFile(fa, fb) {
		return false
	}
	pa, aerr := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", a.Fd()))
	pb, berr := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", b.Fd()))
	return aerr == nil && berr == nil && pa == pb
}

func onXFS(f *os.File) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.XFS_SUPER_MAGIC
}

// stamp gives an image the time of now, for programs that go by it, such as rsync: writing did
// not.
func stamp(image *os.File) {
	if !onXFS(image) {
		return
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", image.Fd()), times, 0)
}
