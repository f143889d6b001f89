package fake

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/test/cloud/machine"
)

// Files are the disks and snapshots of a cloud: sparse files in one folder.
type Files string

// Path is where the file of a disk or snapshot lies.
func (f Files) Path(id string) string { return filepath.Join(string(f), id+".img") }

// Create makes a file of zeros.
func (f Files) Create(id string, size int64) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(f.Path(id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}

// Copy makes a file with the contents of another, and zeros up to size. Where the file
// system can, both share their blocks. The copy is not of one moment if someone writes
// meanwhile.
func (f Files) Copy(id, from string, size int64) error {
	if err := machine.Copy(f.Path(id), f.Path(from)); err != nil {
		return err
	}
	return os.Truncate(f.Path(id), size)
}

// Grow makes a file longer.
func (f Files) Grow(id string, size int64) error { return os.Truncate(f.Path(id), size) }

// Used is how many bytes of a file were written.
func (f Files) Used(id string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(f.Path(id), &st); err != nil {
		return 0
	}
	return st.Blocks * 512
}

// Remove deletes a file; one that is not there is no error.
func (f Files) Remove(id string) error {
	err := os.Remove(f.Path(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
