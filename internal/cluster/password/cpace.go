package password

import (
	"crypto/sha512"

	"github.com/gtank/ristretto255"
)

// The cipher suite CPACE-RISTR255-SHA512 of draft-irtf-cfrg-cpace: the names below are the draft's.
const (
	dsi       = "CPaceRistretto255"
	dsiISK    = dsi + "_ISK"
	dsiMAC    = "CPaceMac"
	blockSize = sha512.BlockSize
)

// prependLen appends s behind its length, seven bits to a byte.
func prependLen(b, s []byte) []byte {
	n := len(s)
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(append(b, byte(n)), s...)
}

func lvCat(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = prependLen(b, p)
	}
	return b
}

// generatorString pads the secret to a whole block of the hash, so that how long hashing takes does not
// tell how long it is.
func generatorString(prs, ci, sid []byte) []byte {
	pad := max(0, blockSize-1-len(prependLen(nil, prs))-len(prependLen(nil, []byte(dsi))))
	return lvCat([]byte(dsi), prs, make([]byte, pad), ci, sid)
}

func generator(prs, ci, sid []byte) *ristretto255.Element {
	sum := sha512.Sum512(generatorString(prs, ci, sid))
	return ristretto255.NewElement().FromUniformBytes(sum[:])
}

// multiply is the draft's scalar_mult_vfy. It reports false for what is no element and for what comes to the
// identity, which anybody could have foreseen.
func multiply(y *ristretto255.Scalar, share []byte) ([]byte, bool) {
	e := ristretto255.NewElement()
	if len(share) != ShareSize || e.Decode(share) != nil {
		return nil, false
	}
	e.ScalarMult(y, e)
	if e.Equal(ristretto255.NewElement()) == 1 {
		return nil, false
	}
	return e.Encode(nil), true
}

// sessionKey is the draft's ISK, of the side that speaks first and the other.
func sessionKey(sid, k, ya, ada, yb, adb []byte) []byte {
	sum := sha512.Sum512(append(lvCat([]byte(dsiISK), sid, k), lvCat(ya, ada, yb, adb)...))
	return sum[:]
}
