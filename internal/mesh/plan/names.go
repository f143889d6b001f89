package plan

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"net/netip"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

// innerBits is the length of the prefix of all inner addresses, a unique local one.
const innerBits = 48

var inner = [6]byte{0xfd, 0x72, 0x6d, 0x6f, 0x72, 0x61}

// Inner returns the address of a host inside the tunnel. It is made from its identity, so nobody hands it out.
func Inner(h record.Host) netip.Addr {
	var a [16]byte
	copy(a[:], inner[:])
	sum := digest("inner", h[:])
	copy(a[len(inner):], sum[:])
	return netip.AddrFrom16(a)
}

// hop returns the link-local address by which a host is routed to over VXLAN.
func hop(h record.Host) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80}
	sum := digest("hop", h[:])
	copy(a[8:], sum[:])
	return netip.AddrFrom16(a)
}

func digest(what string, parts ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("remora " + what))
	for _, p := range parts {
		h.Write([]byte{0})
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// vni is the number of a VXLAN, of 24 bits. Zero and one are kept for what is not a network's.
func vni(network string) int {
	sum := digest("vni", []byte(network))
	return max(2, int(sum[0])<<16|int(sum[1])<<8|int(sum[2]))
}

// routedVNI is that of the link over which plain packets are routed.
const routedVNI = 1

// pairKey is what the handshake of two hosts is mixed with: without the cluster's secret the keys that stand
// in the records are worth nothing.
func pairKey(secret []byte, a, b record.Host) (k tunnel.Key) {
	if len(secret) == 0 {
		return k
	}
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	out, err := hkdf.Key(sha256.New, secret, append(a[:], b[:]...), "remora tunnel", len(k))
	if err != nil { // only of a length that cannot be
		panic(err)
	}
	copy(k[:], out)
	return k
}
