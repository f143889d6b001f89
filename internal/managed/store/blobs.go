package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// blobPath returns where a blob lies. A digest comes from outside, and becomes a path.
func blobPath(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "digest %q: it is no sha256", d)
	}
	return blobDir + "/" + d.Encoded(), nil
}

// Has says whether a blob is there. It is whole then.
func (s *Store) Has(d digest.Digest) bool {
	name, err := blobPath(d)
	if err != nil {
		return false
	}
	_, err = s.root.Lstat(name)
	return err == nil
}

// Blob opens a blob for reading, and says how long it is.
func (s *Store) Blob(d digest.Digest) (*os.File, int64, error) {
	name, err := blobPath(d)
	if err != nil {
		return nil, 0, err
	}
	f, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, errdefs.Errorf(errdefs.ErrNotFound, "blob %s: not found", d)
	}
	if err != nil {
		return nil, 0, state.Classify(err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close() // it was only opened
		return nil, 0, state.Classify(err)
	}
	return f, st.Size(), nil
}

// ReadBlob returns a blob of at most max bytes, and makes sure that it still is what it was.
func (s *Store) ReadBlob(d digest.Digest, maxSize int64) ([]byte, error) {
	f, size, err := s.Blob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxSize {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "blob %s: it is longer than %d bytes", d, maxSize)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, state.Classify(fmt.Errorf("blob %s: %w", d, err))
	}
	if digest.FromBytes(data) != d {
		return nil, s.damaged(d)
	}
	return data, nil
}

// verify reads a blob to its end, and makes sure that it still is what it was.
func (s *Store) verify(ctx context.Context, d digest.Digest) error {
	f, _, err := s.Blob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := digest.SHA256.Hash()
	if _, err := io.Copy(hash, until(ctx, f)); err != nil {
		return state.Classify(fmt.Errorf("blob %s: %w", d, err))
	}
	if digest.NewDigest(digest.SHA256, hash) != d {
		return s.damaged(d)
	}
	return nil
}

// damaged drops a blob whose bytes are others than they were, so that the next pull fetches it.
func (s *Store) damaged(d digest.Digest) error {
	if name, err := blobPath(d); err == nil {
		_ = s.root.Remove(name) // the next look finds it damaged again
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "blob %s: damaged on the disk", d),
		"it is fetched again by the next install or upgrade; look for a fault of the disk")
}

// Add stores a blob with the size and digest of want, which are checked as it is written: nothing of
// one that is longer, shorter or another stays. One that is there already is not read. Callers that
// are not yet done with the blob's plugin have a [Store.Hold].
func (s *Store) Add(ctx context.Context, r io.Reader, want ocispec.Descriptor) error {
	if _, err := blobPath(want.Digest); err != nil {
		return err
	}
	if s.Has(want.Digest) {
		return nil
	}
	w, err := s.newBlob()
	if err != nil {
		return err
	}
	defer w.abort()
	if _, err := io.Copy(w, io.LimitReader(until(ctx, r), want.Size+1)); err != nil {
		return fmt.Errorf("blob %s: after %d of %d bytes: %w", want.Digest, w.size, want.Size, err)
	}
	switch {
	case w.size > want.Size:
		return errdefs.Errorf(errdefs.ErrInvalid, "blob %s: longer than the %d bytes that it was said to have", want.Digest, want.Size)
	case w.size < want.Size:
		return errdefs.Errorf(errdefs.ErrUnavailable, "blob %s: cut off after %d of %d bytes", want.Digest, w.size, want.Size)
	case w.digest() != want.Digest:
		return errdefs.Errorf(errdefs.ErrInvalid, "blob %s: what came has the digest %s", want.Digest, w.digest())
	}
	_, err = w.commit()
	return err
}

// blobWriter is a blob in the making.
type blobWriter struct {
	s    *Store
	f    *os.File
	temp string
	hash hash.Hash
	size int64
}

func (s *Store) newBlob() (*blobWriter, error) {
	w := &blobWriter{s: s, temp: ingestDir + "/" + rand.Text(), hash: digest.SHA256.Hash()}
	f, err := s.root.OpenFile(w.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, state.Classify(fmt.Errorf("blob: %w", err))
	}
	w.f = f
	return w, nil
}

func (w *blobWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.size += int64(n)
	_, _ = w.hash.Write(p[:n]) // never fails
	return n, state.Classify(err)
}

func (w *blobWriter) digest() digest.Digest { return digest.NewDigest(digest.SHA256, w.hash) }

// commit gives the blob its name. It is on the disk then.
func (w *blobWriter) commit() (digest.Digest, error) {
	d := w.digest()
	name, err := blobPath(d)
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil {
		err = w.s.root.Rename(w.temp, name)
	}
	if err == nil {
		w.temp = ""
		err = state.SyncDir(w.s.root, path.Dir(name))
	}
	if err != nil {
		return "", state.Classify(fmt.Errorf("blob %s: %w", d, err))
	}
	return d, nil
}

// abort removes what was not committed.
func (w *blobWriter) abort() {
	_ = w.f.Close()
	if w.temp != "" {
		_ = w.s.root.Remove(w.temp) // else the next Open does
	}
}

// until returns a reader that ends with the context.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
