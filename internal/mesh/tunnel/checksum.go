package tunnel

import (
	"encoding/binary"
	"math/bits"
)

// finish sets the checksum (RFC 1071) of a segment, at its place in it, to that of all that is there and more.
func finish(segment []byte, at int, more uint64) {
	s := sum(segment, more)
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	// Of UDP nothing would say that there is none. All ones are the same number.
	if s == 0xffff {
		s = 0
	}
	binary.BigEndian.PutUint16(segment[at:], ^uint16(s))
}

// sum adds up the words of b in the order of the network, and what there is of them already, into at most 34 bits. It takes
// eight bytes at a time: a sum of larger words is, word by word, the same once it is folded.
func sum(b []byte, more uint64) uint64 {
	var s, carry uint64
	for len(b) >= 64 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[8:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[16:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[24:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[32:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[40:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[48:]), carry)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	if len(b) > 0 {
		var rest [8]byte
		copy(rest[:], b)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(rest[:]), carry)
	}
	s, carry = bits.Add64(s, carry, 0)
	s = s>>32 + s&0xffffffff + carry
	s = s>>32 + s&0xffffffff
	return s>>16 + s&0xffff + more
}
