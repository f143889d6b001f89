package link

import (
	"encoding/binary"
	"fmt"
	"io"
)

type frameType byte

const (
	framePing   frameType = 1 + iota // a number
	framePong                        // the same number
	framePacket                      // a message to the host
	frameOpen                        // begins a stream: what it is for
	frameData                        // bytes of a stream
	frameCredit                      // so many bytes more may be sent on a stream
	frameEnd                         // nothing more comes on a stream
	frameStop                        // nothing more is read of a stream
	frameReset                       // a stream is broken: the reason
	frameBye                         // the link is closed: the reason
)

// Limits of a frame. MaxPacket is that of what Send takes.
const (
	MaxPacket  = 64 << 10
	maxData    = 16 << 10
	maxUnknown = 64 << 10 // of types that a later version may have
	headerSize = 8
)

// frame is what travels on a link. Its form is the type, the length in three bytes, the number of the stream, the payload.
type frame struct {
	kind    frameType
	stream  uint32 // 0 for what is about the link itself
	payload []byte
}

// lengths are the least and the greatest that the payload of each type may have.
var lengths = [...][2]int{
	framePing: {8, 8}, framePong: {8, 8}, framePacket: {0, MaxPacket},
	frameOpen: {1, 1 + 32}, frameData: {1, maxData}, frameCredit: {4, 4},
	frameEnd: {0, 0}, frameStop: {0, 0}, frameReset: {1, 1}, frameBye: {1, 1},
}

func (t frameType) known() bool { return t > 0 && int(t) < len(lengths) }

func (t frameType) ofStream() bool { return t >= frameOpen && t <= frameReset }

func (f frame) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(f.kind)<<24|uint32(len(f.payload)))
	b = binary.BigEndian.AppendUint32(b, f.stream)
	return append(b, f.payload...)
}

// readFrame reads one frame. One that is longer than it may be is an error before any of it is read.
func readFrame(r io.Reader) (frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	first := binary.BigEndian.Uint32(header[:])
	f := frame{kind: frameType(first >> 24), stream: binary.BigEndian.Uint32(header[4:])}
	n := int(first & 0xffffff)
	switch {
	case !f.kind.known():
		if n > maxUnknown {
			return frame{}, fmt.Errorf("a frame of type %d with %d bytes", f.kind, n)
		}
	case n < lengths[f.kind][0] || n > lengths[f.kind][1]:
		return frame{}, fmt.Errorf("a frame of type %d with %d bytes", f.kind, n)
	case f.kind.ofStream() != (f.stream != 0):
		return frame{}, fmt.Errorf("a frame of type %d for stream %d", f.kind, f.stream)
	}
	f.payload = make([]byte, n)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, fmt.Errorf("cut off in a frame: %w", noEOF(err))
	}
	return f, nil
}

// noEOF makes an end in the middle of something an error.
func noEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // io.ReadFull returns it bare
		return io.ErrUnexpectedEOF
	}
	return err
}
