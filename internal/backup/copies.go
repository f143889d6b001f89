package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo/blob"
)

// copyPrefix begins the names of second copies. What backups consist of is in many blobs of
// data, of which each damaged one costs some files; but each of the few without which nothing
// can be read is there twice: the format, the indexes, the lists of backups and of files.
// Kopia's own program takes no notice of the copies.
const copyPrefix = "remora-copy-"

// The blobs of which there are copies: kopia's formats, its indexes, and its packs of metadata.
var copiedPrefixes = []blob.ID{"kopia.", "x", "q"}

func isCopied(id blob.ID) bool {
	return slices.ContainsFunc(copiedPrefixes, func(p blob.ID) bool { return strings.HasPrefix(string(id), string(p)) })
}

// copied is a storage that keeps the copies. A copy is written after what it is of, and removed
// before it: one that is there alone is of something that was removed by somebody else.
type copied struct {
	blob.Storage
}

// PutBlob implements [blob.Storage].
func (s copied) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if err := s.Storage.PutBlob(ctx, id, data, opts); err != nil || !isCopied(id) {
		return err
	}
	r := data.Reader()
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	return s.putCopy(ctx, id, b, blob.PutOptions{RetentionMode: opts.RetentionMode, RetentionPeriod: opts.RetentionPeriod})
}

// DeleteBlob implements [blob.Storage].
func (s copied) DeleteBlob(ctx context.Context, id blob.ID) error {
	if isCopied(id) {
		if err := s.Storage.DeleteBlob(ctx, copyPrefix+id); err != nil {
			return err
		}
	}
	return s.Storage.DeleteBlob(ctx, id)
}

// putCopy writes the copy of a blob: what is in it, and the hash of that.
func (s copied) putCopy(ctx context.Context, id blob.ID, b []byte, opts blob.PutOptions) error {
	sum := sha256.Sum256(b)
	return s.Storage.PutBlob(ctx, copyPrefix+id, slice(slices.Concat(b, sum[:])), opts)
}

// errNoCopy is for a copy that is not there, or damaged itself.
var errNoCopy = errors.New("has no copy that is whole")

// getCopy reads the copy of a blob.
func (s copied) getCopy(ctx context.Context, id blob.ID) ([]byte, error) {
	b, err := get(ctx, s.Storage, copyPrefix+id)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil, errNoCopy
	}
	if err != nil {
		return nil, err
	}
	at := len(b) - sha256.Size
	if at < 0 || sha256.Sum256(b[:at]) != [sha256.Size]byte(b[at:]) {
		return nil, errNoCopy
	}
	return b[:at], nil
}

// get reads a blob.
func get(ctx context.Context, st blob.Reader, id blob.ID) ([]byte, error) {
	var b memory
	err := st.GetBlob(ctx, id, 0, -1, &b)
	return b.Bytes(), err
}

// putBlob writes a blob.
func putBlob(ctx context.Context, st blob.Storage, id blob.ID, b []byte) error {
	return st.PutBlob(ctx, id, slice(b), blob.PutOptions{})
}

// changed tells whether a format is another one than its copy, rather than the same with some
// bytes damaged: kopia's own program writes it anew when the password is changed, and then all
// that is encrypted is another.
func changed(now, was []byte) bool {
	if bytes.HasPrefix(was, []byte("{")) && !json.Valid(now) {
		return false
	}
	same, n := 0, min(len(now), len(was))
	for i := range n {
		if now[i] == was[i] {
			same++
		}
	}
	return n > 0 && same < n*9/10 && bytes.Count(now, now[:1]) < len(now)/2
}

// slice is a blob in memory.
type slice []byte

// Length implements [blob.Bytes].
func (s slice) Length() int { return len(s) }

// WriteTo implements [blob.Bytes].
func (s slice) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s)
	return int64(n), err
}

// Reader implements [blob.Bytes].
func (s slice) Reader() io.ReadSeekCloser { return closable{bytes.NewReader(s)} }

type closable struct{ *bytes.Reader }

func (closable) Close() error { return nil }

// memory takes a blob into memory.
type memory struct{ bytes.Buffer }

// Length implements [blob.OutputBuffer].
func (o *memory) Length() int { return o.Len() }
