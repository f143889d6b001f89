package address

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A ledger is a file to which lines are appended, in frames that are there as a whole or not at all. Behind the last
// frame the file is zero and allocated, so that one fdatasync, and nothing of the file system's journal, makes a frame last.
type ledger struct {
	root *os.Root
	name string
	// all returns the lines that say the same as all of the file, for when it is written anew.
	all func() []byte

	mu      sync.Mutex
	waiting []byte // not written yet
	next    *batch // to whom that belongs
	writing bool
	closed  bool

	writer sync.Mutex // of who writes
	// Below is the writer's alone.
	f      *os.File
	end    int64 // of the last frame
	size   int64 // of the file
	seq    uint64
	anew   int64 // when the file is written anew
	least  int64 // that is so large at least
	broken bool
}

type batch struct {
	done chan struct{}
	err  error
}

const (
	frameMagic  = 0x524d4131
	frameHeader = 4 + 4 + 8 + 4
	ahead       = 256 << 10
	leastAnew   = 1 << 20
)

// openLedger opens the file, or makes it, and returns its lines.
func openLedger(root *os.Root, name string, all func() []byte) (*ledger, []byte, error) {
	l := &ledger{root: root, name: name, all: all, anew: leastAnew, least: leastAnew, next: &batch{done: make(chan struct{})}}
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	l.f = f
	lines, err := l.read()
	if err == nil {
		err = l.trim()
	}
	if err == nil {
		err = syncDir(root)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return l, lines, nil
}

func (l *ledger) read() (lines []byte, err error) {
	data, err := io.ReadAll(l.f)
	if err != nil {
		return nil, err
	}
	for {
		body, ok := frameAt(data[l.end:], l.seq+1)
		if !ok {
			break
		}
		lines = append(lines, body...)
		l.end += frameHeader + int64(len(body))
		l.seq++
	}
	// What comes behind was not whole when the host went down, and nobody was told of it. If there are
	// whole frames again, then it is the disk that lost something.
	for rest := data[l.end:]; ; {
		i := bytes.Index(rest, binary.BigEndian.AppendUint32(nil, frameMagic))
		if i < 0 {
			return lines, nil
		}
		rest = rest[i:]
		if len(rest) >= frameHeader {
			if _, ok := frameAt(rest, binary.BigEndian.Uint64(rest[8:])); ok && binary.BigEndian.Uint64(rest[8:]) > l.seq {
				return nil, errdefs.Hint(fmt.Errorf("damaged at byte %d, with entries behind that", l.end),
					"stop all containers of the host's networks and delete the file: addresses are then given out anew")
			}
		}
		rest = rest[1:]
	}
}

func frameAt(b []byte, seq uint64) (body []byte, ok bool) {
	if len(b) < frameHeader || binary.BigEndian.Uint32(b) != frameMagic || binary.BigEndian.Uint64(b[8:]) != seq {
		return nil, false
	}
	n := int64(binary.BigEndian.Uint32(b[4:]))
	if n > int64(len(b)-frameHeader) {
		return nil, false
	}
	body = b[frameHeader : frameHeader+n]
	return body, binary.BigEndian.Uint32(b[16:]) == checksum(b[:16], body)
}

func checksum(head, body []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(head), crc32.IEEETable, body)
}

// trim cuts off what lies behind the last frame.
func (l *ledger) trim() error {
	if err := l.f.Truncate(l.end); err != nil {
		return err
	}
	l.size = l.end
	return l.f.Sync()
}

// append makes lines last. Calls at the same time share one write.
func (l *ledger) append(lines []byte) error { return l.enter(lines)() }

// enter gives lines their place behind all that were entered before, and waits for nothing; they last when what it returns has
// returned nil. Who changes what the lines are about enters them before another can.
func (l *ledger) enter(lines []byte) (last func() error) {
	if len(lines) == 0 {
		return func() error { return nil }
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return func() error { return errdefs.Errorf(errdefs.ErrUnavailable, "%s: closed", l.name) }
	}
	l.waiting = append(l.waiting, lines...)
	mine := l.next
	return func() error { return l.flush(mine) }
}

// flush writes what waits, unless somebody does, and returns what came of mine.
func (l *ledger) flush(mine *batch) error {
	l.mu.Lock()
	if l.writing {
		l.mu.Unlock()
		<-mine.done
		return mine.err
	}
	l.writing = true
	l.writer.Lock()
	for len(l.waiting) > 0 {
		now, b := l.waiting, l.next
		l.waiting, l.next = nil, &batch{done: make(chan struct{})}
		l.mu.Unlock()
		b.err = l.write(now)
		close(b.done)
		l.mu.Lock()
	}
	l.writing = false
	l.writer.Unlock()
	l.mu.Unlock()
	return mine.err
}

func (l *ledger) write(lines []byte) error {
	if l.broken || l.end > l.anew {
		// All of the state, of which these lines are a part already.
		return l.rewrite()
	}
	frame := l.frame(lines)
	err := l.extend(int64(len(frame)))
	if err == nil {
		_, err = l.f.WriteAt(frame, l.end)
	}
	if err == nil {
		err = unix.Fdatasync(int(l.f.Fd()))
	}
	if err != nil {
		l.broken = true // a part may be there
		return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%s: %w", l.name, err))
	}
	l.end += int64(len(frame))
	l.seq++
	return nil
}

func (l *ledger) frame(lines []byte) []byte {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, frameHeader+len(lines)), frameMagic)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(lines)))
	frame = binary.BigEndian.AppendUint64(frame, l.seq+1)
	frame = binary.BigEndian.AppendUint32(frame, checksum(frame, lines))
	return append(frame, lines...)
}

// extend makes room for n bytes.
func (l *ledger) extend(n int64) error {
	if l.end+n <= l.size {
		return nil
	}
	size := l.end + n + ahead
	if _, err := l.f.WriteAt(make([]byte, size-l.size), l.size); err != nil {
		return err
	}
	l.size = size
	return l.f.Sync()
}

// rewrite puts a new file in the place of the old one.
func (l *ledger) rewrite() (err error) {
	name := l.name + ".new"
	f, err := l.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	fresh := ledger{f: f}
	frame := fresh.frame(l.all())
	err = fresh.extend(int64(len(frame)))
	if err == nil {
		_, err = f.WriteAt(frame, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.root.Rename(name, l.name)
	}
	if err == nil {
		err = syncDir(l.root)
	}
	if err != nil {
		l.broken = true
		return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("%s: %w", l.name, errors.Join(err, f.Close())))
	}
	old := l.f
	l.f, l.end, l.size, l.seq, l.broken = f, int64(len(frame)), fresh.size, 1, false
	l.anew = max(l.least, 4*l.end)
	return old.Close()
}

// close waits for the writer and closes the file.
func (l *ledger) close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.writer.Lock()
	defer l.writer.Unlock()
	return l.f.Close()
}

func syncDir(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
