package fill

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TakeEmpty makes sure of a directory that is to be filled: it is empty, or has what this fill, cut
// off before, has written to it.
func (f *Fill) TakeEmpty(dir string) error {
	if f.OwnsData() {
		return Clear(dir)
	}
	if err := Empty(dir); err != nil {
		return err
	}
	return f.Change(func(facts *Facts) { facts.Own = true })
}

// ErrNotOurs says that a volume which was to be made by a restore is somebody else's: nothing in
// it may be touched.
var ErrNotOurs = errdefs.Errorf(errdefs.ErrExists, "it was not made for this")

// Empty refuses a directory that holds more than what a new file system does.
func Empty(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name() != lostFound {
			return fmt.Errorf("new, and not empty, as it has %q: %w", e.Name(), ErrNotOurs)
		}
	}
	return nil
}

// lostFound is the directory that a file system makes for itself.
const lostFound = "lost+found"

// Clear removes all that is in a directory.
func Clear(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name() == lostFound {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
