package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const room = 16 // before each packet, as WireGuard has it

// super makes a packet with its header, whose data is so long and is to be cut in pieces; 0 is a whole one.
func super(from, to string, protocol byte, length, piece int) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	ip, sumAt, head := make([]byte, ip4Header), 16, make([]byte, 20)
	kind := byte(unix.VIRTIO_NET_HDR_GSO_TCPV4)
	head[tcpOffset], head[tcpFlags] = 5<<4, 0x19 // FIN, PSH, ACK
	binary.BigEndian.PutUint32(head[tcpSeq:], 1<<32-1000)
	if protocol == unix.IPPROTO_UDP {
		kind, sumAt, head = unix.VIRTIO_NET_HDR_GSO_UDP_L4, 6, make([]byte, udpHeader)
		binary.BigEndian.PutUint16(head[udpLen:], uint16(udpHeader+length))
	}
	binary.BigEndian.PutUint32(head, 0x12345678) // ports
	switch {
	case src.Is4():
		ip[0], ip[8], ip[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(ip[ip4ID:], 0xffff)
		binary.BigEndian.PutUint16(ip[ip4Len:], uint16(ip4Header+len(head)+length))
		copy(ip[ip4Addrs:], append(src.AsSlice(), dst.AsSlice()...))
		binary.BigEndian.PutUint16(ip[ip4Sum:], slow(ip))
	default:
		if protocol == unix.IPPROTO_TCP {
			kind = unix.VIRTIO_NET_HDR_GSO_TCPV6
		}
		ip = make([]byte, ip6Header)
		ip[0], ip[6], ip[7] = 0x60, protocol, 64
		copy(ip[ip6Addrs:], append(src.AsSlice(), dst.AsSlice()...))
		binary.BigEndian.PutUint16(ip[ip6Len:], uint16(len(head)+length))
	}
	if piece == 0 {
		kind = unix.VIRTIO_NET_HDR_GSO_NONE
	}
	// The kernel leaves the sum of the pseudo header.
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, protocol)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(head)+length))
	binary.BigEndian.PutUint16(head[sumAt:], ^slow(pseudo))
	header := []byte{unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, kind}
	for _, n := range []int{0, piece, len(ip), sumAt} {
		header = binary.NativeEndian.AppendUint16(header, uint16(n))
	}
	data := make([]byte, length)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	return bytes.Join([][]byte{header, ip, head, data}, nil)
}

// slow is the checksum, as RFC 1071 tells it.
func slow(b []byte) uint16 {
	var s uint32
	for i, c := range b {
		if i%2 == 0 {
			s += uint32(c) << 8
		} else {
			s += uint32(c)
		}
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// sound returns what is wrong with a packet, and its data.
func sound(p []byte) (data []byte, err error) {
	ip, protocol := int(p[0]&15)*4, p[9]
	addrs := p[ip4Addrs:ip4Header]
	length := int(binary.BigEndian.Uint16(p[ip4Len:]))
	if p[0]>>4 == 6 {
		ip, protocol, addrs = ip6Header, p[6], p[ip6Addrs:ip6Header]
		length = ip6Header + int(binary.BigEndian.Uint16(p[ip6Len:]))
	} else if slow(p[:ip]) != 0 {
		return nil, fmt.Errorf("checksum of IP")
	}
	if length != len(p) {
		return nil, fmt.Errorf("length %d of %d", length, len(p))
	}
	head := 20
	if protocol == unix.IPPROTO_UDP {
		head = udpHeader
		if n := int(binary.BigEndian.Uint16(p[ip+udpLen:])); n != len(p)-ip {
			return nil, fmt.Errorf("length %d of UDP", n)
		}
	}
	all := append(bytes.Clone(addrs), 0, protocol)
	all = binary.BigEndian.AppendUint16(all, uint16(len(p)-ip))
	if got := slow(append(all, p[ip:]...)); got != 0 {
		return nil, fmt.Errorf("checksum is off by %x", got)
	}
	return p[ip+head:], nil
}

func buffers() (bufs [][]byte, sizes []int) {
	for range 128 {
		bufs = append(bufs, bytes.Repeat([]byte{0xee}, 1<<16-1))
	}
	return bufs, make([]int, 128)
}

func TestSplit(t *testing.T) {
	bufs, sizes := buffers()
	for _, c := range []struct {
		from, to      string
		protocol      byte
		length, piece int
		pieces        int
	}{
		{"10.1.0.2", "10.1.128.3", unix.IPPROTO_TCP, 60000, 1380, 44},
		{"10.1.0.2", "10.1.128.3", unix.IPPROTO_TCP, 2760, 1380, 2},
		{"10.1.0.2", "10.1.128.3", unix.IPPROTO_UDP, 1001, 100, 11},
		{"10.1.0.2", "10.1.128.3", unix.IPPROTO_UDP, 3, 2, 2},
		{"fd00::2", "fd00::1:3", unix.IPPROTO_TCP, 60000, 1360, 45},
		{"fd00::2", "fd00::1:3", unix.IPPROTO_UDP, 640, 64, 10},
	} {
		p := super(c.from, c.to, c.protocol, c.length, c.piece)
		n := split(bytes.Clone(p), bufs, sizes, room)
		if n != c.pieces {
			t.Errorf("%+v: %d pieces", c, n)
			continue
		}
		var data []byte
		for i := range n {
			out := bufs[i][room : room+sizes[i]]
			part, err := sound(out)
			if err != nil {
				t.Fatalf("%+v: piece %d: %v", c, i, err)
			}
			if c.protocol == unix.IPPROTO_TCP {
				head := out[len(out)-len(part)-20:]
				if got, want := binary.BigEndian.Uint32(head[tcpSeq:]), uint32(1<<32-1000+len(data)); got != want {
					t.Errorf("%+v: piece %d begins at %d, want %d", c, i, got, want)
				}
				if end := head[tcpFlags]&finPush != 0; end != (i == n-1) || head[tcpFlags]&0x10 == 0 {
					t.Errorf("%+v: piece %d has flags %x", c, i, head[tcpFlags])
				}
			}
			if out[0]>>4 == 4 {
				if id := binary.BigEndian.Uint16(out[ip4ID:]); id != uint16(0xffff+i) {
					t.Errorf("%+v: piece %d has ID %x", c, i, id)
				}
			}
			data = append(data, part...)
		}
		if want := p[len(p)-c.length:]; !bytes.Equal(data, want) {
			t.Errorf("%+v: the data is another", c)
		}
	}
	if n := split(super("10.1.0.2", "10.1.0.3", unix.IPPROTO_TCP, 60000, 100), bufs, sizes, room); n != len(bufs) {
		t.Errorf("%d pieces where there is room for %d", n, len(bufs))
	}
}

func TestWhole(t *testing.T) {
	to := make([]byte, 1500)
	for _, length := range []int{1, 2, 63, 64, 65, 1400} {
		p := super("10.1.0.2", "10.1.0.3", unix.IPPROTO_UDP, length, 0)
		n := whole(p, to)
		if data, err := sound(to[:n]); err != nil || !bytes.Equal(data, p[len(p)-length:]) {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
	if n := whole(super("10.1.0.2", "10.1.0.3", unix.IPPROTO_UDP, 1500, 0), to); n != 0 {
		t.Errorf("%d bytes of one that is too large", n)
	}
}

func TestSum(t *testing.T) {
	b := make([]byte, 2000)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	parts := [][]byte{nil, {1}, {0xff, 0xff}, bytes.Repeat([]byte{0xff}, 1<<16), b}
	for range 2000 {
		from := rand.IntN(len(b))
		parts = append(parts, b[from:from+rand.IntN(len(b)-from)])
	}
	for _, part := range parts {
		s := sum(part, 0)
		for s>>16 != 0 {
			s = s&0xffff + s>>16
		}
		if got, want := ^uint16(s), slow(part); got != want {
			t.Errorf("%d bytes: %x, want %x", len(part), got, want)
		}
	}
}

// fileOnly is a TUN device of which only the file is used.
type fileOnly struct {
	tun.Device
	file *os.File
}

func (f fileOnly) File() *os.File { return f.file }
func (fileOnly) BatchSize() int   { return 128 }

// TestReadAtOnce: what waits is read at once and in order, a super-packet by itself.
func TestReadAtOnce(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer far.Close()
	b, err := inBatches(fileOnly{file: near}, newFlight(), newFlight())
	if err != nil {
		t.Fatal(err)
	}
	small := func(n int) []byte { return super("10.1.0.2", "10.1.0.3", unix.IPPROTO_UDP, n, 0) }
	for _, p := range [][]byte{
		small(10),
		{1, 2, 3},
		small(11),
		super("10.1.0.2", "10.1.0.3", unix.IPPROTO_TCP, 4000, 1000),
		small(12),
		small(13),
		super("10.1.0.2", "10.1.0.3", unix.IPPROTO_UDP, 30, 10),
	} {
		if _, err := far.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	bufs, sizes := buffers()
	for _, want := range [][]int{{38, 39}, {1040, 1040, 1040, 1040}, {40, 41}, {38, 38, 38}} {
		n, err := b.Read(bufs, sizes, room)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, sizes[:n]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for i := range n {
			if _, err := sound(bufs[i][room : room+sizes[i]]); err != nil {
				t.Errorf("packet %d: %v", i, err)
			}
		}
	}
	if b.out.n != 11 {
		t.Errorf("%d packets are in flight", b.out.n)
	}
	go near.Close()
	if n, err := b.Read(bufs, sizes, room); err == nil {
		t.Errorf("%d packets of a file that is closed", n)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(super("10.1.0.2", "10.1.0.3", unix.IPPROTO_TCP, 4000, 1000))
	f.Add(super("fd00::2", "fd00::3", unix.IPPROTO_UDP, 100, 10))
	f.Add(super("10.1.0.2", "10.1.0.3", unix.IPPROTO_UDP, 100, 0))
	bufs, sizes := buffers()
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) <= vnetLen {
			return
		}
		if n := whole(bytes.Clone(p), bufs[0]); n < 0 || n > len(p)-vnetLen {
			t.Errorf("%d bytes", n)
		}
		for i := range split(p, bufs, sizes, room) {
			if sizes[i] <= 0 || sizes[i] > len(p)-vnetLen {
				t.Errorf("piece %d has %d bytes", i, sizes[i])
			}
		}
	})
}
