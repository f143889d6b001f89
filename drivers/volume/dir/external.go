package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// makeExternal makes sure of the directory elsewhere. undo removes it again if it was
// made here, and is still empty.
func makeExternal(o options) (undo func(), err error) {
	made, err := mkdirAll(o.Mountpoint)
	undo = func() {
		for _, dir := range made {
			_ = unix.Rmdir(dir)
		}
	}
	if err != nil {
		return undo, fmt.Errorf("mountpoint %s: %w", o.Mountpoint, err)
	}
	data, err := os.OpenFile(o.Mountpoint, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return undo, fmt.Errorf("mountpoint %s: %w", o.Mountpoint, err)
	}
	defer data.Close()
	return undo, o.Apply(data)
}

// mkdirAll makes path and the directories above it, and returns those that were missing, the
// deepest first. Where it fails some of them may be there.
func mkdirAll(path string) (missing []string, err error) {
	for dir := path; ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err == nil && !fi.IsDir() || errors.Is(err, unix.ENOTDIR) {
			return nil, errdefs.As(errdefs.ErrInvalid, unix.ENOTDIR)
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	return missing, os.MkdirAll(path, defaultMode)
}

// resolve follows the symbolic links of a path as far as it exists.
func resolve(path string) string {
	for dir, rest := path, ""; ; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == filepath.Dir(dir) {
			return path
		}
	}
}

// checkMount looks whether what the directory elsewhere lay on when the volume was made is
// mounted: without it, the empty directory below would take the data.
func (f facts) checkMount() error {
	if f.MountedAt == "" || f.MountedAt == "/" {
		return nil
	}
	at, err := mount.Of(resolve(f.Mountpoint))
	if err == nil && at != f.MountedAt {
		err = errdefs.Errorf(errdefs.ErrUnavailable, "nothing is mounted at %s, on which it lay", f.MountedAt)
	}
	return err
}
