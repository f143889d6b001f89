package store

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// extractor unpacks the layers of a plugin, one after the other, into a directory that nobody else
// can see.
//
// No entry leaves the directory. Its parent is found as a process would find it that has the
// directory for its root: each link on the way is followed within it, and ".." ends at the top. The
// parent is opened through [os.Root], which would refuse a mistake in that, and all that is done to
// the entry is done to one name in that parent without following it.
//
// Devices are refused, as only the runtime gives a plugin any, but for those in /dev, which are left
// out: the runtime mounts its own there. User and group, the bits of set-user-ID and the rest of
// the mode, times, capabilities and the user's own extended attributes are kept.
type extractor struct {
	root *os.Root
	lim  *budget
	// below says that there is a layer below the one that is being unpacked, and made is what is of
	// this one, which an opaque directory keeps.
	below bool
	made  map[string]bool
	// times of directories are set in the end, for each file in one changes it.
	times map[string]time.Time
	// dir is the directory that was entered last.
	dir  *os.File
	name string // as the archive has it
	real string // where it is
	buf  []byte
}

func newExtractor(root *os.Root, lim *budget) *extractor {
	return &extractor{root: root, lim: lim, times: map[string]time.Time{}, buf: make([]byte, 256<<10)}
}

// layer unpacks one layer to its end.
func (x *extractor) layer(r io.Reader) error {
	if x.below {
		x.made = map[string]bool{}
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.entry(h, t); err != nil {
			return fmt.Errorf("%q: %w", h.Name, state.Classify(err))
		}
	}
	x.below = true
	return nil
}

// close sets what is to be set last.
func (x *extractor) close() error {
	x.leave()
	for name, at := range x.times {
		// A directory that was replaced since keeps what it has.
		if fi, err := x.root.Lstat(name); err == nil && fi.IsDir() {
			if err := x.root.Chtimes(name, at, at); err != nil {
				return state.Classify(err)
			}
		}
	}
	return nil
}

func (x *extractor) entry(h *tar.Header, content io.Reader) error {
	if err := x.lim.entry(); err != nil {
		return err
	}
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return x.top(h)
	}
	dir, base := path.Split(name)
	if err := x.enter(path.Clean(dir)); err != nil {
		return err
	}
	if strings.HasPrefix(base, ".wh.") {
		return x.whiteout(base)
	}
	at := path.Join(x.real, base)
	if isDevice(h.Typeflag) {
		if strings.HasPrefix(at, "dev/") {
			return nil
		}
		return errdefs.Errorf(errdefs.ErrInvalid, "it is a device, which a plugin may not bring")
	}
	is, err := x.clear(base, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	if x.made != nil {
		x.made[at] = true
	}
	return x.make(h, base, at, is, content)
}

// make makes the entry in the directory that was entered. is says that it is a directory that is
// there already.
func (x *extractor) make(h *tar.Header, base, at string, is bool, content io.Reader) error {
	fd := int(x.dir.Fd())
	switch h.Typeflag {
	case tar.TypeDir:
		if !is {
			if err := unix.Mkdirat(fd, base, 0o700); err != nil {
				return err
			}
		}
		x.times[at] = h.ModTime
		return x.opened(h, base, unix.O_RDONLY|unix.O_DIRECTORY, nil)
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := x.lim.file(h.Size); err != nil {
			return err
		}
		if err := x.opened(h, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, content); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := within(path.Dir(at), h.Linkname); err != nil {
			return err
		}
		if err := unix.Symlinkat(h.Linkname, fd, base); err != nil {
			return err
		}
		if err := owner(h, func(uid, gid int) error {
			return unix.Fchownat(fd, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}); err != nil {
			return err
		}
	case tar.TypeLink:
		return x.link(h.Linkname, base)
	case tar.TypeFifo:
		if err := unix.Mknodat(fd, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		return x.opened(h, base, unix.O_RDWR|unix.O_NONBLOCK, nil)
	default:
		return errdefs.Errorf(errdefs.ErrInvalid, "it is of the unknown type %q", h.Typeflag)
	}
	ts, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// opened makes or opens a file or directory, fills it, and gives it what the header says of it.
func (x *extractor) opened(h *tar.Header, base string, flags int, content io.Reader) error {
	fd, err := unix.Openat(int(x.dir.Fd()), base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close() // once more on the way out of an error
	if content != nil {
		to := writer(f, h)
		n, err := io.CopyBuffer(to, content, x.buf)
		if err != nil {
			return damaged(err)
		}
		if n != h.Size {
			return damaged(io.ErrUnexpectedEOF)
		}
		if _, ok := to.(holes); ok { // it may end in one
			if err := f.Truncate(h.Size); err != nil {
				return err
			}
		}
	}
	if err := x.meta(f, h); err != nil {
		return err
	}
	return f.Close()
}

// writer is what fills a file. One with holes keeps them: a few bytes of an archive may stand for gigabytes.
func writer(f *os.File, h *tar.Header) io.Writer {
	sparse := h.Typeflag == tar.TypeGNUSparse
	for key := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	if sparse {
		return holes{f}
	}
	return struct{ io.Writer }{f}
}

// holes writes what is not zero.
type holes struct{ f *os.File }

func (h holes) Write(p []byte) (int, error) {
	if len(bytes.TrimLeft(p, "\x00")) > 0 {
		return h.f.Write(p)
	}
	if _, err := h.f.Seek(int64(len(p)), io.SeekCurrent); err != nil {
		return 0, err
	}
	return len(p), nil
}

// meta gives a file its owner, then its mode, which a change of owner lessens, and then its
// attributes, of which that takes the capabilities away.
func (x *extractor) meta(f *os.File, h *tar.Header) error {
	fd := int(f.Fd())
	if err := owner(h, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil { //nolint:gosec // the bits of a mode
		return err
	}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || attr != "security.capability" && !strings.HasPrefix(attr, "user.") {
			continue // what else there is belongs to the host on which the layer was made
		}
		if err := unix.Fsetxattr(fd, attr, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", attr, err)
		}
	}
	return nil
}

// owner refuses numbers that no user has; the highest means "as it is" to the kernel.
func owner(h *tar.Header, chown func(uid, gid int) error) error {
	if h.Uid < 0 || h.Gid < 0 || h.Uid >= math.MaxUint32 || h.Gid >= math.MaxUint32 {
		return errdefs.Errorf(errdefs.ErrInvalid, "its owner is %d:%d", h.Uid, h.Gid)
	}
	return chown(h.Uid, h.Gid)
}

// top is the entry of the root itself.
func (x *extractor) top(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errdefs.Errorf(errdefs.ErrInvalid, "the root is no directory")
	}
	f, err := x.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	x.times["."] = h.ModTime
	return x.meta(f, h)
}

// clear makes room for an entry. A directory stays where a directory comes.
func (x *extractor) clear(base string, dir bool) (is bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(int(x.dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		x.name = "" // it may be a link on the way to here
		return false, unix.Unlinkat(int(x.dir.Fd()), base, 0)
	}
	if dir {
		return true, nil
	}
	return false, x.remove(path.Join(x.real, base))
}

// remove removes a tree that an entry takes the place of.
func (x *extractor) remove(name string) error {
	x.name = "" // the directory that was entered may be in it; x.dir is of use for this entry still
	return x.root.RemoveAll(name)
}

// whiteout takes away what a layer below has.
func (x *extractor) whiteout(base string) error {
	name := strings.TrimPrefix(base, ".wh.")
	switch {
	case name == ".wh..opq":
		return x.opaque()
	case strings.HasPrefix(name, ".wh."):
		return nil // notes that AUFS made for itself
	case name == "" || name == "." || name == "..":
		return errdefs.Errorf(errdefs.ErrInvalid, "it takes away %q", name)
	}
	return x.remove(path.Join(x.real, name))
}

// opaque takes away all that layers below have in the directory that was entered.
func (x *extractor) opaque() error {
	if x.made == nil {
		return nil
	}
	root, err := x.root.OpenRoot(x.real)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if name == "." || err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if x.keeps(path.Join(x.real, name)) {
			return nil
		}
		x.name = ""
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// keeps says whether something is of the layer that is being unpacked.
func (x *extractor) keeps(name string) bool { return x.made[name] }

func isDevice(flag byte) bool { return flag == tar.TypeChar || flag == tar.TypeBlock }

// damaged says what is wrong with the bytes of an archive.
func damaged(err error) error {
	switch {
	case errdefs.Class(err) != nil:
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errdefs.Errorf(errdefs.ErrInvalid, "the archive is cut off")
	}
	if _, ok := errors.AsType[unix.Errno](err); ok {
		return state.Classify(err)
	}
	return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("failed to read from tar: %w", err))
}
