// Package unpack makes the data of a volume from an archive that another tool wrote: tar,
// plain or compressed. The archive may come from anybody: nothing is written outside of the
// directory that is given, whatever it names, and only the disk bounds how much.
package unpack

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Progress is told how many of the bytes of the archive's file have been read.
type Progress func(done, total int64)

// maxWindow is how far back a stream of Zstandard may refer: what "zstd --ultra" needs.
const maxWindow = 128 << 20

// archive is one that is read from its beginning to its end.
type archive struct {
	file  *os.File
	total int64
	raw   *counted
	data  io.Reader // without compression
	plain bool      // there was none
	close func()
	end   *ending
	tar   *tar.Reader
	told  Progress
}

// entry is one of an archive. Name is clean and relative; "." is the top.
type entry struct {
	name string
	*tar.Header
}

// open opens an archive and finds out how it is compressed, by its first bytes.
func open(file string, told Progress) (*archive, error) {
	st, err := os.Stat(file)
	if err == nil && !st.Mode().IsRegular() {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "not a file")
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(file)
	}
	if err != nil {
		return nil, classify(err)
	}
	a := &archive{file: f, told: told, close: func() {}, total: st.Size(), raw: &counted{from: f}}
	if err := a.uncompress(); err != nil {
		f.Close()
		return nil, damaged(err)
	}
	a.end = &ending{from: a.data}
	a.tar = tar.NewReader(a.end)
	return a, nil
}

func (a *archive) shut() {
	a.close()
	_ = a.file.Close() // it was only read
}

func (a *archive) uncompress() error {
	b := bufio.NewReaderSize(a.raw, 1<<20)
	head, err := b.Peek(64)
	if len(head) == 0 && err != nil {
		if errors.Is(err, io.EOF) {
			return errdefs.Errorf(errdefs.ErrInvalid, "it is empty")
		}
		return err
	}
	is := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case is("\x1f\x8b"):
		a.data, err = gzip.NewReader(b)
		return err
	case is("\x28\xb5\x2f\xfd"):
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			a.data, a.close = d, d.Close
		}
		return err
	case is("BZh"):
		a.data = bzip2.NewReader(b)
	case is("\xfd7zXZ\x00"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "it is compressed by xz"), "xz --decompress --keep FILE")
	case is("age-encryption.org/"), is("-----BEGIN AGE"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "it is encrypted by age"), "age --decrypt --output FILE.tar.gz FILE.tar.gz.age")
	case is("-----BEGIN PGP"), strings.HasSuffix(a.file.Name(), ".gpg"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "it is encrypted by gpg"), "gpg --output FILE.tar.gz --decrypt FILE.tar.gz.gpg")
	default:
		a.data, a.plain = b, true
	}
	return nil
}

// next returns the next entry, and io.EOF behind the last one of an archive that is whole.
func (a *archive) next(ctx context.Context) (entry, error) {
	if ctx.Err() != nil {
		return entry{}, context.Cause(ctx)
	}
	if a.told != nil {
		a.told(a.raw.n, a.total)
	}
	for {
		h, err := a.tar.Next()
		if errors.Is(err, io.EOF) {
			if err := a.checkEnd(); err != nil {
				return entry{}, err
			}
			return entry{}, io.EOF
		}
		if err != nil {
			if a.plain && a.raw.n < 512 { // not even a header
				err = tar.ErrHeader
			}
			return entry{}, damaged(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := clean(h.Name)
		return entry{name, h}, err
	}
}

// checkEnd reads what is behind the last entry, for the checksum is there, and misses the
// blocks of zeros that end an archive where they are not.
func (a *archive) checkEnd() error {
	if a.end.over && a.end.zeros < 512 {
		return damaged(io.ErrUnexpectedEOF)
	}
	if _, err := io.Copy(io.Discard, a.data); err != nil {
		return damaged(err)
	}
	return nil
}

// clean makes a path of the archive a relative one without "..".
func clean(name string) (string, error) {
	c := path.Clean(strings.TrimLeft(name, "/"))
	if c == ".." || strings.HasPrefix(c, "../") || strings.ContainsRune(c, 0) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "the entry %q leads out of it", name)
	}
	return c, nil
}

// damaged says what is wrong with the bytes of an archive.
func damaged(err error) error {
	switch {
	case errors.Is(err, tar.ErrHeader):
		return errdefs.Errorf(errdefs.ErrInvalid, "not an archive of tar, or damaged")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errdefs.Errorf(errdefs.ErrInvalid, "the archive is cut off")
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, zstd.ErrCRCMismatch):
		return errdefs.Errorf(errdefs.ErrInvalid, "the archive is damaged: its checksum is another")
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "it wants more memory than 128 MiB to decompress"), "zstd --decompress --long=31 FILE")
	case errdefs.Class(err) != nil:
		return err
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return classify(pe)
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "the archive is damaged: %w", err)
}

// classify gives an error of the file system its class.
func classify(err error) error {
	class := errdefs.ErrUnavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		class = errdefs.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		class = errdefs.ErrDenied
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return errdefs.As(class, err)
}

// counted counts what is read.
type counted struct {
	from io.Reader
	n    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}

// ending knows whether what it read has come to its end, and with how many zeros.
type ending struct {
	from  io.Reader
	over  bool
	zeros int
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.from.Read(p)
	if rest := bytes.TrimRight(p[:n], "\x00"); len(rest) > 0 {
		e.zeros = n - len(rest)
	} else {
		e.zeros += n
	}
	e.over = e.over || errors.Is(err, io.EOF)
	return n, err
}

// Dir is a directory of an archive, and how much is in it.
type Dir struct {
	Name  string
	Files int
	Size  int64
}

// Dirs returns the directories right below a path of the archive, in the order in which they
// come, and how many files beside them there are. It reads all of the archive, which so is
// known to be whole.
func Dirs(ctx context.Context, file, below string, told Progress) (dirs []Dir, loose int, err error) {
	top := &tops{below: below, at: map[string]int{}}
	err = each(ctx, file, told, func(_ *archive, e entry) error {
		top.add(e)
		return nil
	})
	if err == nil && !top.there {
		err = errdefs.Errorf(errdefs.ErrNotFound, "%s: there is no directory %q in it", file, below)
		if len(top.names) > 0 {
			err = errdefs.Hint(err, "name another with --path; there is: "+strings.Join(top.names, ", "))
		}
	}
	return top.dirs, top.loose, err
}

// each calls f for each entry of an archive, up to its end.
func each(ctx context.Context, file string, told Progress, f func(*archive, entry) error) error {
	a, err := open(file, told)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer a.shut()
	for {
		e, err := a.next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(a, e)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
}
