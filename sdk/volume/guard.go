package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// ioctl_iflags(2) and openat2(2), which package syscall has not.
const (
	getFlags  = 2<<30 | unsafe.Sizeof(uintptr(0))<<16 | 'f'<<8 | 1
	setFlags  = 1<<30 | unsafe.Sizeof(uintptr(0))<<16 | 'f'<<8 | 2
	immutable = 0x10

	openat2       = 437
	resolveNoXDev = 0x01
)

// guard sets or clears the immutable flag of an open directory. While it is set, nobody makes
// anything in the directory, root included; to mount on it is as before.
func guard(dir *os.File, set bool) error {
	flags := uintptr(0) // an int, which the kernel writes to the first bytes of
	if _, _, err := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), getFlags, uintptr(unsafe.Pointer(&flags))); err != 0 {
		return err
	}
	p := (*uint32)(unsafe.Pointer(&flags))
	was := *p
	if *p |= immutable; !set {
		*p &^= immutable
	}
	if *p == was {
		return nil
	}
	if _, _, err := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), setFlags, uintptr(unsafe.Pointer(&flags))); err != 0 {
		return err
	}
	return nil
}

// errCovered says that a mountpoint has something mounted on it.
var errCovered = errors.New("still a mount")

// below opens the directory of a mountpoint itself, or is errCovered. It never comes to what is
// mounted there, whose flags are none of ours and whose server may not answer.
func (m mountpoints) below(mountpoint string) (*os.File, error) {
	root, err := os.Open(m.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name, err := syscall.BytePtrFromString(filepath.Base(mountpoint))
	if err != nil {
		return nil, err
	}
	how := struct{ flags, mode, resolve uint64 }{
		syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC, 0, resolveNoXDev,
	}
	fd, _, errno := syscall.Syscall6(openat2, root.Fd(), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
	switch errno {
	case 0:
		return os.NewFile(fd, mountpoint), nil
	case syscall.EXDEV:
		return nil, errCovered
	case syscall.ENOSYS, syscall.EPERM: // before Linux 5.6, or below an old seccomp filter
		if mounted, err := isMount(mountpoint); err != nil || mounted {
			return nil, errors.Join(err, errCovered)
		}
		return os.Open(mountpoint)
	}
	return nil, errno
}

// protect sets the flag on a mountpoint on which nothing is mounted yet. Where the file system
// has no such flag, or this process may not set it, there is none.
func (m mountpoints) protect(mountpoint string) {
	if !m.guard {
		return
	}
	if dir, err := m.below(mountpoint); err == nil {
		_ = guard(dir, true)
		_ = dir.Close()
	}
}

// rmdir removes a mountpoint that has the flag.
func (m mountpoints) rmdir(mountpoint string) error {
	err := syscall.Rmdir(mountpoint)
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	dir, berr := m.below(mountpoint)
	if errors.Is(berr, errCovered) {
		return syscall.EBUSY
	}
	if berr != nil {
		return err
	}
	defer dir.Close()
	if gerr := guard(dir, false); gerr != nil {
		return fmt.Errorf("%w; and its immutable flag cannot be cleared: %w", err, gerr)
	}
	if err = syscall.Rmdir(mountpoint); err != nil && m.guard {
		_ = guard(dir, true)
	}
	return err
}
