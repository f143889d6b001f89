package names

import (
	"net/netip"
	"strconv"
	"strings"
)

// ReverseAddr returns the address whose name a lower-case name such as 1.0.32.10.in-addr.arpa. asks for.
func ReverseAddr(name string) (netip.Addr, bool) {
	if text, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		return reverse4(text)
	}
	if text, ok := strings.CutSuffix(name, ".ip6.arpa."); ok {
		return reverse6(text)
	}
	return netip.Addr{}, false
}

func reverse4(text string) (netip.Addr, bool) {
	var b [4]byte
	for i := 3; i >= 0; i-- {
		label, rest, more := strings.Cut(text, ".")
		n, err := strconv.ParseUint(label, 10, 8)
		if err != nil || more != (i > 0) || len(label) > 1 && label[0] == '0' {
			return netip.Addr{}, false
		}
		b[i], text = byte(n), rest
	}
	return netip.AddrFrom4(b), true
}

func reverse6(text string) (netip.Addr, bool) {
	if len(text) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		at := 62 - 2*i // the last nibble stands first
		if i > 0 && text[at+1] != '.' {
			return netip.Addr{}, false
		}
		n := strings.IndexByte("0123456789abcdef", text[at])
		if n < 0 {
			return netip.Addr{}, false
		}
		b[i/2] = b[i/2]<<4 | byte(n)
	}
	return netip.AddrFrom16(b), true
}
