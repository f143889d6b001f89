package store

import (
	"io"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// limits bound what comes from outside before it is believed.
type limits struct {
	// bytes and entries are what all layers of one plugin may unpack to.
	bytes   int64
	entries int
	// Beyond slack, what is unpacked may be ratio times as long as what it is unpacked from. Programs
	// shrink to a third or a fifth; only zeros shrink to a thousandth.
	slack, ratio int64
}

// The largest plugins that people use have a hundred megabytes and a few thousand files.
var defaultLimits = limits{bytes: 4 << 30, entries: 250_000, slack: 64 << 20, ratio: 200}

// budget is what is left of the limits of one plugin.
type budget struct {
	limits
	usedBytes   int64
	usedEntries int
}

// file takes a file of n bytes out of it, before any of them is read.
func (b *budget) file(n int64) error {
	if n < 0 || n > b.bytes-b.usedBytes {
		return errdefs.Errorf(errdefs.ErrInvalid, "it unpacks to more than %d MiB", b.bytes>>20)
	}
	b.usedBytes += n
	return nil
}

func (b *budget) entry() error {
	if b.usedEntries++; b.usedEntries > b.entries {
		return errdefs.Errorf(errdefs.ErrInvalid, "it has more than %d files", b.entries)
	}
	return nil
}

// inflates says whether out bytes are more than may come of in.
func (b *budget) inflates(in, out int64) error {
	if out > b.slack && out/b.ratio > in {
		return errdefs.Errorf(errdefs.ErrInvalid, "it unpacks to more than %d times its size", b.ratio)
	}
	return nil
}

// counted counts what is read.
type counted struct {
	r    io.Reader
	n    int64
	told func(n int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.told != nil {
		c.told(c.n)
	}
	return n, err
}

// inflated is a decompressed stream that is refused where it grows too much, be it in a file or
// behind the last one.
type inflated struct {
	r   io.Reader
	in  *counted
	n   int64
	lim *budget
}

func (i *inflated) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.n += int64(n)
	if err := i.lim.inflates(i.in.n, i.n); err != nil {
		return 0, err
	}
	if i.n > 2*i.lim.bytes {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "it unpacks to more than %d MiB", i.lim.bytes>>20)
	}
	return n, err
}
