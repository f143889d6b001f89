package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Yank takes the disk away by force, mounted or not, as a cloud does that detaches it from
// under a machine. The file then has what was written up to that moment. A mount that
// stays goes on with an inode of its own, so that nothing it writes is ever seen in the
// file, and where the file system below can (ext4, xfs), its writes fail as those to a
// disk that is gone.
func (m *Machine) Yank(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.disks[name]
	if p == nil {
		return fmt.Errorf("%s: no such disk: %w", name, fs.ErrNotExist)
	}
	delete(m.disks, name)
	return errors.Join(p.hide(), sever(p.File), p.loop.Close())
}

// sever puts a copy in the place of a file. What has it open keeps the old one.
func sever(file string) error {
	old, err := os.Open(file)
	if err != nil {
		return err
	}
	defer old.Close()
	// The kernel refuses to write to what is immutable, through a loop device too, so that
	// the copy is of one moment.
	frozen := immutable(old, true) == nil
	next := file + ".severed"
	err = Copy(next, file)
	if frozen {
		err = errors.Join(err, immutable(old, false)) // or it could not be replaced
	}
	if err != nil {
		_ = os.Remove(next)
		return err
	}
	if err := os.Rename(next, file); err != nil {
		return err
	}
	if frozen {
		return immutable(old, true)
	}
	return nil
}

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

// immutable sets or clears the flag of that name (FS_IOC_SETFLAGS).
func immutable(f *os.File, on bool) error {
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	flags &^= immutableFlag
	if on {
		flags |= immutableFlag
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}
