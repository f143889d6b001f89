package tunnel

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// batches is a TUN device from which all packets that wait are read at once. By itself it gives one for each read, and every
// one of them wakes a worker, a sender and the kernel: small packets would cost five times what they have to.
type batches struct {
	tun.Device
	raw  syscall.RawConn // none where the device knows no super-packets
	out  *flight         // what was read and is not sent yet
	in   *flight         // what was received and is not written yet
	buf  []byte
	held int // bytes of buf that are a super-packet for which there was no room
}

// most is how many small packets are read at once. So many the kernel sends as one.
const most = 64

func inBatches(d tun.Device, out, in *flight) (*batches, error) {
	b := &batches{Device: d, out: out, in: in, buf: make([]byte, vnetLen+1<<16)}
	if d.BatchSize() < most {
		return b, nil
	}
	var err error
	b.raw, err = d.File().SyscallConn()
	return b, err
}

func (b *batches) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	b.out.wait()
	if b.raw == nil {
		n, err = b.Device.Read(bufs, sizes, offset)
		b.out.add(n)
		return n, err
	}
	if b.held > 0 {
		n, b.held = split(b.buf[:b.held], bufs, sizes, offset), 0
	}
	if n == 0 {
		closed := b.raw.Read(func(fd uintptr) bool {
			n, err = b.drain(int(fd), bufs, sizes, offset)
			return n > 0 || err != nil
		})
		if err == nil {
			err = closed
		}
	}
	b.out.add(n)
	return n, err
}

func (b *batches) Write(bufs [][]byte, offset int) (int, error) {
	n, err := b.Device.Write(bufs, offset)
	b.in.done(len(bufs))
	return n, err
}

// drain reads what waits: packets, or one super-packet. What is no packet is left out.
func (b *batches) drain(fd int, bufs [][]byte, sizes []int, offset int) (n int, err error) {
	for n < most {
		size, err := unix.Read(fd, b.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) || err != nil && n > 0: // another error comes again
			return n, nil
		case errors.Is(err, unix.EBADFD):
			return 0, os.ErrClosed
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		}
		p := b.buf[:size]
		switch {
		case len(p) <= vnetLen:
		case p[1] == unix.VIRTIO_NET_HDR_GSO_NONE:
			if sizes[n] = whole(p, bufs[n][offset:]); sizes[n] > 0 {
				n++
			}
		case n > 0:
			b.held = size
			return n, nil
		default:
			if n = split(p, bufs, sizes, offset); n > 0 {
				return n, nil
			}
		}
	}
	return n, nil
}

// vnetLen is the length of the header before each packet (struct virtio_net_hdr, include/uapi/linux/virtio_net.h): flags and
// kind, and in the order of the machine's bytes the length of the headers, the size of a piece, and where the checksum begins and is.
const vnetLen = 10

// vnet takes what it says of the packet after it.
func vnet(p []byte) (flags, kind byte, piece, start, at int, packet []byte) {
	field := func(i int) int { return int(binary.NativeEndian.Uint16(p[i:])) }
	start = field(6)
	return p[0], p[1], field(4), start, start + field(8), p[vnetLen:]
}

// whole copies a packet, with its checksum, and returns its length; none is 0.
func whole(p, to []byte) int {
	flags, _, _, start, at, packet := vnet(p)
	if len(packet) > len(to) {
		return 0
	}
	n := copy(to, packet)
	if flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM == 0 {
		return n
	}
	if at+2 > n || start >= n {
		return 0
	}
	finish(to[start:n], at-start, 0)
	return n
}

// Where things are in headers.
const (
	ip4Len, ip4ID, ip4Sum, ip4Addrs, ip4Header = 2, 4, 10, 12, 20

	ip6Len, ip6Addrs, ip6Header = 4, 8, 40

	tcpSeq, tcpOffset, tcpFlags = 4, 12, 13
	udpLen, udpHeader           = 4, 8

	finPush = 0x09
)

// split cuts a super-packet in pieces, each with headers of its own, and returns how many there are. What does not fit in bufs is lost.
func split(p []byte, bufs [][]byte, sizes []int, offset int) (n int) {
	_, kind, piece, start, at, packet := vnet(p)
	protocol, header := byte(unix.IPPROTO_UDP), start+udpHeader
	switch kind {
	case unix.VIRTIO_NET_HDR_GSO_TCPV4, unix.VIRTIO_NET_HDR_GSO_TCPV6:
		if start+tcpFlags >= len(packet) {
			return 0
		}
		protocol, header = unix.IPPROTO_TCP, start+int(packet[start+tcpOffset]>>4)*4
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
	default:
		return 0
	}
	if piece == 0 || header > len(packet) || at+2 > header || protocol == unix.IPPROTO_TCP && header <= start+tcpFlags {
		return 0
	}
	v4 := packet[0]>>4 == 4
	if v4 && start < ip4Header || !v4 && start < ip6Header {
		return 0
	}
	addrs := packet[ip4Addrs:ip4Header]
	if !v4 {
		addrs = packet[ip6Addrs:ip6Header]
	}
	pseudo := sum(addrs, uint64(protocol))
	for data := packet[header:]; len(data) > 0 && n < len(bufs); n++ {
		last := len(data) <= piece
		body := data[:min(piece, len(data))]
		data = data[len(body):]
		total := header + len(body)
		if offset+total > len(bufs[n]) {
			return n
		}
		out := bufs[n][offset : offset+total]
		copy(out, packet[:header])
		copy(out[header:], body)
		if v4 {
			binary.BigEndian.PutUint16(out[ip4Len:], uint16(total))
			binary.BigEndian.PutUint16(out[ip4ID:], binary.BigEndian.Uint16(out[ip4ID:])+uint16(n))
			clear(out[ip4Sum : ip4Sum+2])
			finish(out[:start], ip4Sum, 0)
		} else {
			binary.BigEndian.PutUint16(out[ip6Len:], uint16(total-ip6Header))
		}
		segment := out[start:]
		if protocol == unix.IPPROTO_TCP {
			binary.BigEndian.PutUint32(segment[tcpSeq:], binary.BigEndian.Uint32(segment[tcpSeq:])+uint32(n*piece))
			if !last {
				segment[tcpFlags] &^= finPush
			}
		} else {
			binary.BigEndian.PutUint16(segment[udpLen:], uint16(len(segment)))
		}
		clear(segment[at-start : at-start+2])
		finish(segment, at-start, pseudo+uint64(len(segment)))
		sizes[n] = total
	}
	return n
}
