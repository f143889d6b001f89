package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Result says what was unpacked.
type Result struct {
	Files int
	Bytes int64
	// Skipped is how many devices, and entries of kinds that nobody knows, were left out.
	Skipped int
}

// tree writes what is below a path of an archive into a directory.
type tree struct {
	root  *os.Root
	below string
	dirs  []entry // whose modes and times are set when nothing is written into them any more
	buf   []byte
	Result
}

const passMode = 0o700 // of a directory until all that is in it is there

func (t *tree) read(ctx context.Context, file string, told Progress) error {
	t.buf = make([]byte, 256<<10)
	if err := each(ctx, file, told, func(a *archive, e entry) error { return t.put(ctx, a, e) }); err != nil {
		return err
	}
	for _, e := range slices.Backward(t.dirs) {
		if st, err := t.root.Lstat(e.name); err == nil && !st.IsDir() {
			continue // replaced since
		}
		if err := t.meta(e, e.name); err != nil {
			return fmt.Errorf("%q: %w", e.name, named(err))
		}
	}
	return nil
}

func (t *tree) put(ctx context.Context, a *archive, e entry) error {
	full := e.name
	var in bool
	if e.name, in = within(e.name, t.below); !in {
		return nil
	}
	if err := t.make(ctx, a, e); err != nil {
		return fmt.Errorf("%q: %w", full, named(err))
	}
	return nil
}

// named gives errors of writing the words that go with them: what is wrong with the archive
// has its class already.
func named(err error) error {
	if errdefs.Class(err) != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if strings.Contains(err.Error(), "escapes from parent") { // os.Root has no error for it that is exported
		return errdefs.Errorf(errdefs.ErrInvalid, "a symbolic link on its way leads out of the volume")
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		err = le.Err
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EINVAL) {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		}
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	return classify(err)
}

func (t *tree) make(ctx context.Context, a *archive, e entry) error {
	if e.name == "." {
		if e.Typeflag != tar.TypeDir {
			return errdefs.Errorf(errdefs.ErrInvalid, "not a directory")
		}
		t.dirs = append(t.dirs, e)
		return nil
	}
	if above := path.Dir(e.name); above != "." {
		if err := t.root.MkdirAll(above, 0o755); err != nil {
			return err
		}
	}
	switch e.Typeflag {
	case tar.TypeDir:
		return t.dir(e)
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		return t.regular(ctx, a, e)
	case tar.TypeSymlink, tar.TypeLink, tar.TypeFifo:
		if err := t.clear(e.name); err != nil {
			return err
		}
		t.Files++
		switch e.Typeflag {
		case tar.TypeSymlink:
			return t.symlink(e)
		case tar.TypeLink:
			return t.link(e)
		default:
			return t.fifo(e)
		}
	default:
		t.Skipped++
		return nil
	}
}

// clear removes what has a name: in an archive the last one counts.
func (t *tree) clear(name string) error {
	err := t.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *tree) dir(e entry) error {
	err := t.root.Mkdir(e.name, passMode)
	if errors.Is(err, fs.ErrExist) {
		st, serr := t.root.Lstat(e.name)
		if serr != nil {
			return serr
		}
		if err = nil; !st.IsDir() {
			if err = t.clear(e.name); err == nil {
				err = t.root.Mkdir(e.name, passMode)
			}
		}
	}
	if err != nil {
		return err
	}
	t.dirs = append(t.dirs, e)
	return nil
}

func (t *tree) regular(ctx context.Context, a *archive, e entry) error {
	if err := t.clear(e.name); err != nil {
		return err
	}
	f, err := t.root.OpenFile(e.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := t.content(ctx, a, f, e.Size)
	if err == nil {
		err = attributes(f, e)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	t.Files++
	t.Bytes += n
	return t.meta(e, e.name)
}

// content writes the content of an entry, and leaves holes where there are only zeros.
func (t *tree) content(ctx context.Context, a *archive, f *os.File, size int64) (int64, error) {
	var n int64
	for {
		got, err := io.ReadFull(a.tar, t.buf) // which calls the end of the entry unexpected
		if got > 0 && len(bytes.TrimRight(t.buf[:got], "\x00")) > 0 {
			if _, werr := f.WriteAt(t.buf[:got], n); werr != nil {
				return n, werr
			}
		}
		n += int64(got)
		if a.told != nil {
			a.told(a.raw.n, a.total)
		}
		switch {
		case ctx.Err() != nil:
			return n, context.Cause(ctx)
		case n == size && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
			return n, f.Truncate(n)
		case err != nil:
			return n, damaged(err)
		}
	}
}

func (t *tree) symlink(e entry) error {
	if err := t.root.Symlink(e.Linkname, e.name); err != nil {
		return err
	}
	if err := t.root.Lchown(e.name, e.Uid, e.Gid); err != nil {
		return err
	}
	return t.inParent(e.name, func(dir int, base string) error {
		return unix.UtimesNanoAt(dir, base, []unix.Timespec{timespec(e.ModTime), timespec(e.ModTime)}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// link makes another name of a file that came before.
func (t *tree) link(e entry) error {
	name, err := clean(e.Linkname)
	if err != nil {
		return err
	}
	first, in := within(name, t.below)
	if !in || first == "." {
		return errdefs.Errorf(errdefs.ErrInvalid, "it is another name of %q, which is not in the volume", e.Linkname)
	}
	return t.root.Link(first, e.name)
}

func (t *tree) fifo(e entry) error {
	err := t.inParent(e.name, func(dir int, base string) error { return unix.Mkfifoat(dir, base, 0o600) })
	if err != nil {
		return err
	}
	return t.meta(e, e.name)
}

// inParent calls f with the directory of a name open, for what os.Root cannot do.
func (t *tree) inParent(name string, f func(dir int, base string) error) error {
	d, err := t.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()), path.Base(name))
}

// meta sets owner, mode and times, in this order: a change of owner takes set-user-ID away.
func (t *tree) meta(e entry, name string) error {
	if err := t.root.Lchown(name, e.Uid, e.Gid); err != nil {
		return err
	}
	if e.Typeflag == tar.TypeDir && len(e.PAXRecords) > 0 {
		d, err := t.root.Open(name)
		if err != nil {
			return err
		}
		err = attributes(d, e)
		d.Close()
		if err != nil {
			return err
		}
	}
	if err := t.root.Chmod(name, e.FileInfo().Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return t.root.Chtimes(name, e.ModTime, e.ModTime)
}

// attributes sets the extended attributes that GNU tar keeps. Those that the system gives to
// each file by its own rules are left to it.
func attributes(f *os.File, e entry) error {
	for key, value := range e.PAXRecords {
		name, is := strings.CutPrefix(key, "SCHILY.xattr.")
		if !is || strings.HasPrefix(name, "security.") && name != "security.capability" {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

func timespec(t time.Time) unix.Timespec { return unix.NsecToTimespec(t.UnixNano()) }
