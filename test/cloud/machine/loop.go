package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// attach puts a file on a free loop device and returns it open, with its number. The kernel
// takes it apart when the last one lets go: this process, or what is mounted from it.
func attach(file string) (*os.File, uint64, error) {
	image, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	defer image.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, 0, fmt.Errorf("/dev/loop-control: %w", err)
		}
		loop, dev, err := configure(fmt.Sprintf("/dev/loop%d", n), image)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) {
			continue // somebody else was faster
		}
		return loop, dev, err
	}
}

func configure(path string, image *os.File) (*os.File, uint64, error) {
	loop, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	var st unix.Stat_t
	c := unix.LoopConfig{Fd: uint32(image.Fd()), Size: 512}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(c.Info.File_name[:len(c.Info.File_name)-1], image.Name())
	err = unix.IoctlLoopConfigure(int(loop.Fd()), &c)
	if err == nil {
		err = unix.Fstat(int(loop.Fd()), &st)
	}
	if err != nil {
		_ = loop.Close()
		return nil, 0, fmt.Errorf("%s: attach %s: %w", path, image.Name(), err)
	}
	return loop, st.Rdev, nil
}

// claim opens a loop device as a file system does. It is EBUSY while one is mounted from
// it, in whatever mount namespace, or lazily unmounted and in use.
func claim(loop *os.File) (*os.File, error) {
	return os.OpenFile(loop.Name(), os.O_RDWR|unix.O_EXCL, 0)
}

// flush brings to the file what was written to the device, and to the disk what is in the file.
func flush(loop *os.File) error {
	return loop.Sync()
}

// capacity tells a loop device that its file has grown.
func capacity(loop *os.File) error {
	if _, err := unix.IoctlRetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY); err != nil {
		return fmt.Errorf("%s: set capacity: %w", loop.Name(), err)
	}
	return nil
}

// holder returns the loop device that a file is on, if it is on one.
func holder(file string) string {
	backed, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, sys := range backed {
		text, err := os.ReadFile(sys)
		if err == nil && strings.TrimSuffix(string(text), "\n") == file {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(sys)))
		}
	}
	return ""
}

// mountedAt says where a loop device is mounted, in the mount namespaces of all processes,
// for an error; it is empty if nothing is found. The claim is what decides, as a mount may
// be in a namespace without a process.
func mountedAt(loop string) string {
	var st unix.Stat_t
	if err := unix.Stat(loop, &st); err != nil {
		return ""
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	seen := map[string]bool{}
	var at []string
	for _, proc := range procs {
		ns, err := os.Readlink(filepath.Join(proc, "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		f, err := os.Open(filepath.Join(proc, "mountinfo"))
		if err != nil {
			continue // ended meanwhile
		}
		infos, err := mountinfo.GetMountsFromReader(f, nil)
		_ = f.Close()
		if err != nil {
			continue
		}
		for _, i := range infos {
			same := uint64(i.Major) == uint64(unix.Major(st.Rdev)) && uint64(i.Minor) == uint64(unix.Minor(st.Rdev))
			if same && !slices.Contains(at, i.Mountpoint) {
				at = append(at, i.Mountpoint)
			}
		}
	}
	if len(at) == 0 {
		return ""
	}
	return " at " + strings.Join(at, ", ")
}
