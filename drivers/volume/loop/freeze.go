package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ioctl_fsfreeze(2), whose numbers package unix does not have.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// frozen calls do while the file system in an image is frozen: it is written out, and whoever
// writes to it waits. One that is not mounted needs no freezing.
func (d *driver) frozen(ctx context.Context, image *os.File, do func() error) (err error) {
	v, err := find(image)
	if err != nil {
		return err
	}
	if v == nil {
		return do()
	}
	at, err := mountsOf(v.path)
	v.close()
	if err != nil {
		return err
	}
	if len(at) == 0 { // nothing has it, or somebody out of sight
		if err := settle(ctx, image); err != nil {
			return err
		}
		return do()
	}
	lock := d.freezeLock(v.path)
	lock.Lock()
	defer lock.Unlock()
	dir, err := at[0].Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = unix.Syncfs(int(dir.Fd())) // so that the freeze, for which all wait, finds little to write
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "its file system is frozen by somebody else"), "fsfreeze -u "+dir.Name())
		}
		return fmt.Errorf("freeze %s: %w", dir.Name(), err)
	}
	defer func() { // whatever happens in do, a panic included
		if terr := thawDir(dir); terr != nil && err == nil {
			err = terr
		}
	}()
	return do()
}

func (d *driver) freezeLock(device string) *sync.Mutex {
	lock, _ := d.freezing.LoadOrStore(device, new(sync.Mutex))
	return lock.(*sync.Mutex)
}

// thawDir ends a freeze. A file system that is not frozen stays as it is.
func thawDir(dir *os.File) error {
	if err := unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("thaw %s: %w", dir.Name(), err)
	}
	return nil
}

// thaw ends a freeze that a process did not live to end, if the mount is of a loop device. One
// that is being frozen by this process is left alone, or waited for.
func (d *driver) thaw(at mount.Info, wait bool) error {
	if !strings.HasPrefix(at.Source, loopPrefix) {
		return nil
	}
	lock := d.freezeLock(at.Source)
	if wait {
		lock.Lock()
	} else if !lock.TryLock() {
		return nil
	}
	defer lock.Unlock()
	dir, err := at.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	return thawDir(dir)
}

// thawAll thaws the volumes of the pool, once in the life of a process: containers that lived
// on wait for it, and no call of theirs would come.
func (d *driver) thawAll() {
	real, err := filepath.EvalSymlinks(d.Path)
	if err != nil {
		return
	}
	mounts, err := mount.List("/")
	if err != nil {
		return
	}
	for _, m := range mounts {
		if !strings.HasPrefix(m.Source, loopPrefix) {
			continue
		}
		backing, err := os.ReadFile("/sys/block/" + filepath.Base(m.Source) + "/loop/backing_file")
		if err != nil || !strings.HasPrefix(string(backing), real+"/") {
			continue
		}
		if err := d.thaw(m, false); err != nil {
			d.Log.Warn("a volume may be frozen since a crash", slog.String("mountpoint", m.Mountpoint), slog.Any("error", err))
		}
	}
}
