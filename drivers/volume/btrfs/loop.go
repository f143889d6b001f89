package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loopBlock is the block size of the loop device: that of the file system on it, and large
// enough for direct I/O on any disk below.
const loopBlock = 4096

// loopOf opens the loop device that has the file already, or gives it one (loop(4)). The
// device goes by itself when nothing uses it any more: a crash leaves none behind. It must
// be open until it is mounted.
func loopOf(ctx context.Context, image *os.File) (*os.File, error) {
	if dev, err := loopWith(image); dev != nil || err != nil {
		return dev, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), iocLoopGetFree)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		if err = configureLoop(dev, image); err == nil {
			return dev, nil
		}
		_ = dev.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was faster
			return nil, fmt.Errorf("%s: %w", dev.Name(), err)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// configureLoop puts the file below the device, past the page cache where the file system
// of the host can: what the btrfs above has in memory need not be there twice.
func configureLoop(dev, image *os.File) error {
	conf := unix.LoopConfig{Fd: uint32(image.Fd()), Size: loopBlock}
	conf.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(conf.Info.File_name[:len(conf.Info.File_name)-1], image.Name())
	err := unix.IoctlLoopConfigure(int(dev.Fd()), &conf)
	if errors.Is(err, unix.EINVAL) {
		conf.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &conf)
	}
	return err
}

// loopWith opens the loop device that has the file; nil if there is none.
func loopWith(image *os.File) (*os.File, error) {
	used, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, dir := range used {
		dev, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(dir)), os.O_RDWR, 0)
		if err != nil {
			continue // gone since, or not for us
		}
		if loopHas(dev, image) {
			return dev, nil
		}
		_ = dev.Close()
	}
	return nil, nil
}

// loopHas tells whether the loop device has the file, whatever their names are by now.
func loopHas(dev, image *os.File) bool {
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(image.Fd()), &st) == nil && info.Device == uint64(st.Dev) && info.Inode == st.Ino //nolint:unconvert // 32 bits on some machines
}

// isLoop tells whether what is mounted comes from a loop device.
func isLoop(source string) bool { return strings.HasPrefix(source, "/dev/loop") }
