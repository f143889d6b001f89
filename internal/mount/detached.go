package mount

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
)

// attributes are the options of mount(8) that are of the mount and not of the file system.
var attributes = map[string]int{
	"noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME, "relatime": unix.MOUNT_ATTR_RELATIME,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nodev": unix.MOUNT_ATTR_NODEV, "nosuid": unix.MOUNT_ATTR_NOSUID, "noexec": unix.MOUNT_ATTR_NOEXEC,
}

// Detached is a file system that is mounted and stands nowhere in the tree: nobody else
// can enter it, and it is unmounted when it is closed or when the process dies.
type Detached struct {
	fd int
}

// Detach mounts the file system of a device or server detached (fsopen(2), Linux 5.2).
// options are those of mount(8), "ro" among them. What the kernel has to say about a
// failure is in the error, which has the class of [state.Classify].
func Detach(source, fsType string, options []string) (*Detached, error) {
	fd, err := detach(source, fsType, options)
	if err != nil {
		return nil, state.Classify(fmt.Errorf("mount %s of %s: %w", fsType, source, err))
	}
	return &Detached{fd}, nil
}

func detach(source, fsType string, options []string) (int, error) {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	attrs, atime := 0, false
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return -1, said(fs, err)
	}
	for _, option := range options {
		attr, ok := attributes[option]
		key, value, pair := strings.Cut(option, "=")
		switch {
		case ok:
			if time := option == "noatime" || option == "strictatime" || option == "relatime"; time {
				if atime {
					attrs &^= unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_STRICTATIME // the last one counts
				}
				atime = true
			}
			attrs |= attr
		case pair:
			err = unix.FsconfigSetString(fs, key, value)
		default:
			err = unix.FsconfigSetFlag(fs, option)
		}
		if err != nil {
			return -1, fmt.Errorf("option %q: %w", option, said(fs, err))
		}
		if option == "ro" {
			attrs |= unix.MOUNT_ATTR_RDONLY
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, said(fs, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, said(fs, err)
	}
	return fd, nil
}

// said adds to an error what the kernel wrote about it: the last message that is kept for
// the context of a mount.
func said(fs int, err error) error {
	text, buf := "", make([]byte, 4096)
	for {
		n, rerr := unix.Read(fs, buf)
		if rerr != nil || n <= 0 {
			break
		}
		if line := string(buf[:n]); strings.HasPrefix(line, "e ") {
			text = strings.TrimSpace(line[2:])
		}
	}
	if text == "" {
		return err
	}
	return fmt.Errorf("%s: %w", strconv.QuoteToGraphic(text), err)
}

// Open opens a directory of the file system, "." for its root. No link is followed.
func (m *Detached) Open(dir string) (*os.File, error) {
	fd, err := unix.Openat(m.fd, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, state.Classify(fmt.Errorf("%s: %w", dir, err))
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Attach puts one directory of the file system on the directory target, "." for the
// whole. The mount stays after Close.
func (m *Detached) Attach(dir, target string) error {
	if err := m.attach(dir, target); err != nil {
		return state.Classify(fmt.Errorf("mount on %q: %w", target, err))
	}
	return nil
}

func (m *Detached) attach(dir, target string) error {
	if dir == "." {
		return place(m.fd, target)
	}
	part, err := unix.OpenTree(m.fd, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.15 no part could be had of what stands nowhere
		return m.attachByTurns(dir, target)
	}
	if err != nil {
		return err
	}
	defer unix.Close(part)
	return place(part, target)
}

// attachByTurns puts the whole on target, and in its place the part. A crash between the
// two leaves the whole there, which [Info.Root] tells apart.
func (m *Detached) attachByTurns(dir, target string) error {
	if err := place(m.fd, target); err != nil {
		return err
	}
	part, err := unix.OpenTree(unix.AT_FDCWD, target+"/"+dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	// Lazily: other mount namespaces have a copy, and for an instant somebody may look at it.
	if uerr := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err == nil && uerr != nil {
		_ = unix.Close(part)
		return uerr
	}
	if err != nil {
		return err
	}
	defer unix.Close(part)
	return place(part, target)
}

func place(fd int, target string) error {
	return unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// Close lets go of the file system. What Attach put somewhere stays there.
func (m *Detached) Close() error { return unix.Close(m.fd) }
