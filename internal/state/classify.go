package state

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Classify gives an error of the file system its class, and a hint where a person can
// do something. It is the one place where errno becomes a class:
//
//	ENOENT                                    ErrNotFound
//	EEXIST, ENOTEMPTY                         ErrExists
//	EBUSY                                     ErrInUse
//	EACCES, EPERM                             ErrDenied
//	ENOSPC, EDQUOT, EROFS, EIO, ESTALE,
//	ENOTCONN, ETIMEDOUT, EMFILE, ENFILE       ErrUnavailable
//
// An error that has a class already, and one of none of these, stays as it is.
func Classify(err error) error {
	if err == nil || errdefs.Class(err) != nil {
		return err
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return err
	}
	switch errno {
	case syscall.ENOENT:
		return errdefs.As(errdefs.ErrNotFound, err)
	case syscall.EEXIST, syscall.ENOTEMPTY:
		return errdefs.As(errdefs.ErrExists, err)
	case syscall.EBUSY:
		return errdefs.As(errdefs.ErrInUse, err)
	case syscall.EACCES, syscall.EPERM:
		return errdefs.Hint(errdefs.As(errdefs.ErrDenied, err),
			"run the daemon as root, and look for a security module that confines it")
	case syscall.ENOSPC, syscall.EDQUOT:
		return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "free space or inodes on that file system, or raise the quota")
	case syscall.EROFS:
		return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "mount that file system read-write")
	case syscall.EIO, syscall.ESTALE, syscall.ENOTCONN, syscall.ETIMEDOUT:
		return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "look for the fault of the disk or its server in dmesg")
	case syscall.EMFILE, syscall.ENFILE:
		return errdefs.Hint(errdefs.As(errdefs.ErrUnavailable, err), "raise the limit of open files (LimitNOFILE=)")
	}
	return err
}

// reason drops the name of the operation and the path from an error of package os,
// whose caller says better what was done.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
