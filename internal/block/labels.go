package block

import (
	"fmt"
	"strings"
)

// relabel makes a key of a tag of the name of a label: what no tag may have is written as its
// bytes.
func relabel(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

func unlabel(key string) string {
	var b strings.Builder
	for i := 0; i < len(key); i++ {
		var c byte
		if n, err := fmt.Sscanf(key[i:min(i+3, len(key))], "_%02x", &c); n == 1 && err == nil {
			b.WriteByte(c)
			i += 2
		} else {
			b.WriteByte(key[i])
		}
	}
	return b.String()
}
