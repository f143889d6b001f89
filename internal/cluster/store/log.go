package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// A log is a header and then frames, one record each:
//
//	mark, 4 bytes · length, 4 bytes · CRC-32C of length and record, 4 bytes · record
//
// The mark is where reading goes on behind a part that is damaged.
const (
	logHeader   = "remora records 1\n"
	frameHeader = 12
	maxFrame    = record.MaxBody + 4<<10
)

var (
	frameMark = [4]byte{0xf5, 'r', 'e', 'c'}
	castagno  = crc32.MakeTable(crc32.Castagnoli)
)

func appendFrame(b []byte, r record.Record) []byte {
	start := len(b)
	b = append(b, frameMark[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Size()))
	b = append(b, 0, 0, 0, 0)
	b = r.Append(b)
	binary.BigEndian.PutUint32(b[start+8:], frameSum(b[start:]))
	return b
}

func frameSize(r record.Record) int { return frameHeader + r.Size() }

func frameSum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[4:8], castagno), castagno, frame[frameHeader:])
}

// damage is what reading a log found besides records.
type damage struct {
	// lost is how many bytes in the middle, or in a whole last frame, were not what was written.
	lost int
	// torn is the length of a last frame that is not complete: a write that was cut off and had not
	// been answered yet.
	torn int
}

func (d damage) String() string {
	return fmt.Sprintf("%d bytes are not what was written, and were left out", d.lost)
}

// readLog calls take for each record that is whole, in order. The record's Body is a part of b.
func readLog(b []byte, take func(record.Record)) (d damage) {
	if len(b) < len(logHeader) && bytes.HasPrefix([]byte(logHeader), b) {
		return damage{torn: len(b)}
	}
	if rest, ok := bytes.CutPrefix(b, []byte(logHeader)); ok {
		b = rest
	} else {
		// The header is damaged: what frames there are is still good.
		n := nextFrame(b)
		d.lost, b = n, b[n:]
	}
	for len(b) > 0 {
		if r, n, ok := readFrame(b); ok {
			take(r)
			b = b[n:]
			continue
		}
		n := 1 + nextFrame(b[1:])
		if n == len(b) && cutOff(b) {
			d.torn = n
		} else {
			d.lost += n
		}
		b = b[n:]
	}
	return d
}

// readFrame reads the frame at the start of b.
func readFrame(b []byte) (r record.Record, n int, ok bool) {
	if len(b) < frameHeader || [4]byte(b) != frameMark {
		return r, 0, false
	}
	size := binary.BigEndian.Uint32(b[4:])
	if size > maxFrame || int(size) > len(b)-frameHeader {
		return r, 0, false
	}
	n = frameHeader + int(size)
	if frameSum(b[:n]) != binary.BigEndian.Uint32(b[8:]) {
		return r, 0, false
	}
	r, rest, err := record.Decode(b[frameHeader:n])
	return r, n, err == nil && len(rest) == 0
}

// nextFrame returns where in b the next whole frame begins, or len(b).
func nextFrame(b []byte) int {
	at := 0
	for {
		i := bytes.Index(b[at:], frameMark[:])
		if i < 0 {
			return len(b)
		}
		if at += i; at < len(b) {
			if _, _, ok := readFrame(b[at:]); ok {
				return at
			}
			at++
		}
	}
}

// cutOff reports whether b is the start of a frame that ends behind b.
func cutOff(b []byte) bool {
	if len(b) < frameHeader {
		return bytes.HasPrefix(frameMark[:], b[:min(len(b), len(frameMark))])
	}
	size := binary.BigEndian.Uint32(b[4:])
	return [4]byte(b) == frameMark && size <= maxFrame && int(size) > len(b)-frameHeader
}
