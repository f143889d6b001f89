package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot/restore"
)

// Files are written in pieces of pieceSize, with holes where blocks of holeSize are zero.
const (
	pieceSize = 1 << 20
	holeSize  = 4 << 10
)

var (
	filePieces = sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}
	zeros      [holeSize]byte
)

// copyFile writes what is in a file. Kopia writes holes too, but in steps of one block, which takes twice
// as long.
func copyFile(ctx context.Context, name string, to *os.File, e kopiafs.File, tell restore.FileWriteProgress) (err error) {
	from, err := e.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	buf := filePieces.Get().(*[]byte)
	defer filePieces.Put(buf)
	at, hole := int64(0), false
	for {
		n, err := io.ReadFull(from, *buf)
		piece := (*buf)[:n]
		for len(piece) > 0 {
			zero, length := run(piece)
			if hole = zero; !zero {
				if _, err := to.WriteAt(piece[:length], at); err != nil {
					return target(name, err)
				}
			}
			at, piece = at+int64(length), piece[length:]
		}
		if tell != nil {
			tell(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if hole {
				return to.Truncate(at)
			}
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// run returns how many bytes at the beginning of b are all of zero blocks, or all of others.
func run(b []byte) (zero bool, length int) {
	for length < len(b) {
		block := b[length:min(length+holeSize, len(b))]
		is := bytes.Equal(block, zeros[:len(block)])
		if length > 0 && is != zero {
			break
		}
		zero = is
		length += len(block)
	}
	return zero, length
}
