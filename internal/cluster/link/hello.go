package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// The versions of the protocol that this program speaks.
const (
	Protocol    = 1
	minProtocol = 1
)

type messageType byte

// What is said before there are frames: both hellos, the dialer first; the shares and confirmations of a proof, if
// either does not know the other; the listener's confirmation or messageWelcome ends it, messageRefuse
// does so at any time.
const (
	messageHello messageType = 1 + iota
	messageShare
	messageConfirm
	messageWelcome
	messageRefuse
)

const maxMessage = 1024

func writeMessage(w io.Writer, kind messageType, body []byte) error {
	b := append([]byte{byte(kind)}, byte(len(body)>>8), byte(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

func readMessage(r io.Reader) (messageType, []byte, error) {
	var header [3]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(header[1:]))
	if n > maxMessage {
		return 0, nil, fmt.Errorf("a message of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, noEOF(err)
	}
	return messageType(header[0]), body, nil
}

// Standing is what a host is to this one.
type Standing byte

const (
	Unknown Standing = iota // has to prove that it knows the password
	Member
	Removed // is refused
)

// Summary is what a host says of its cluster to whoever asks.
type Summary struct {
	Cluster record.Cluster // zero for none
	Hosts   int            // in it; 0 if that is not known
	Founded time.Time      // zero likewise
	Spare   bool           // nothing uses it: it may be given up for another
}

const maxTime = 253402300799 // in seconds, the last that has a year of four digits

func (s Summary) String() string {
	text := s.Cluster.String()
	switch {
	case s.Cluster == record.Cluster{}:
		return "none"
	case s.Hosts == 1:
		text += ", 1 host"
	case s.Hosts > 1:
		text += fmt.Sprintf(", %d hosts", s.Hosts)
	}
	if !s.Founded.IsZero() {
		text += ", founded " + s.Founded.UTC().Format("2006-01-02 15:04:05")
	}
	return text
}

// instance is drawn by each run of the program. Two hosts with one key have two.
type instance [16]byte

// hello is what each side says of itself once TLS has proved the keys. Its layout never changes; what a later version has to
// add comes behind it.
type hello struct {
	Summary
	min, max uint16 // versions of the protocol
	instance instance
	dial     uint64 // how many the dialer had dialled before in this run
	password bool   // has one
	standing Standing
	observed netip.AddrPort // where the other side comes from
}

const magic = "remora\x00\x01"

func (h hello) encode() []byte {
	b := []byte(magic)
	b = binary.BigEndian.AppendUint16(b, h.min)
	b = binary.BigEndian.AppendUint16(b, h.max)
	b = append(b, h.Cluster[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(max(0, h.Hosts)))
	var founded int64
	if !h.Founded.IsZero() {
		founded = h.Founded.Unix()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(founded))
	b = append(b, h.instance[:]...)
	b = binary.BigEndian.AppendUint64(b, h.dial)
	var flags byte
	if h.password {
		flags |= 1
	}
	if h.Spare {
		flags |= 2
	}
	b = append(b, flags, byte(h.standing))
	addr, _ := h.observed.MarshalBinary() // it never fails
	return append(append(b, byte(len(addr))), addr...)
}

var errNoHello = errors.New("what it says is no hello of remora")

func decodeHello(b []byte) (h hello, err error) {
	const fixed = len(magic) + 2 + 2 + len(h.Cluster) + 4 + 8 + len(h.instance) + 8 + 1 + 1 + 1
	if len(b) < fixed || string(b[:len(magic)]) != magic {
		return hello{}, errNoHello
	}
	b = b[len(magic):]
	h.min, h.max = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	b = b[4+copy(h.Cluster[:], b[4:]):]
	h.Hosts = int(binary.BigEndian.Uint32(b))
	if founded := int64(binary.BigEndian.Uint64(b[4:])); founded > 0 && founded <= maxTime {
		h.Founded = time.Unix(founded, 0).UTC()
	}
	b = b[12:]
	b = b[copy(h.instance[:], b):]
	h.dial = binary.BigEndian.Uint64(b)
	h.password, h.Spare, h.standing = b[8]&1 != 0, b[8]&2 != 0, Standing(b[9])
	n := int(b[10])
	b = b[11:]
	if h.min > h.max || h.standing > Removed || n > len(b) {
		return hello{}, errNoHello
	}
	// An address that cannot be read is one that is not known.
	_ = h.observed.UnmarshalBinary(b[:n])
	// A zone is a name of the other host's, of no use here.
	h.observed = netip.AddrPortFrom(h.observed.Addr().Unmap().WithZone(""), h.observed.Port())
	if !h.observed.Addr().IsValid() {
		h.observed = netip.AddrPort{}
	}
	return h, nil
}

// judge says why the two hosts cannot have a link, as the one sees it whose hello is own; 0 if they can. The other
// comes to the mirror image, or to the same.
func judge(own, peer hello, sameKey bool) Reason {
	switch {
	case peer.max < own.min:
		return OldProtocol
	case peer.min > own.max:
		return NewProtocol
	case sameKey && own.instance == peer.instance:
		return Itself
	case sameKey:
		return Cloned
	case apart(own, peer):
		return OtherCluster
	case peer.standing == Removed:
		return RemovedHere
	case own.standing == Removed:
		return RemovedThere
	case own.password && !peer.password:
		return NoPassword
	case !own.password && peer.password:
		return NeedsPassword
	}
	return 0
}

// apart reports whether two hosts are in two clusters.
func apart(own, peer hello) bool {
	var none record.Cluster
	return own.Cluster != none && peer.Cluster != none && own.Cluster != peer.Cluster
}

// needsProof reports whether one of two hosts that judge lets have a link does not know the other.
func needsProof(own, peer hello) bool {
	return own.password && (own.standing != Member || peer.standing != Member)
}
