// Package password proves to each other that two hosts know the same password, without telling it.
//
// The proof is CPace, a balanced PAKE, on the group ristretto255. Its secret is what Argon2id makes of the
// password, once for each launch. It is bound to the channel that it runs over and to the keys of both ends:
// who sits between two hosts has two channels, and proves nothing on either. Who listens gets nothing that a
// guess could be compared with, and who takes part may make one guess, of which the other side learns.
// [Limiter] says how many of those there may be.
package password

import (
	"crypto/rand"
	"log/slog"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// MaxLength is that of a password in bytes.
const MaxLength = 1024

// KeySize is the length of a Key.
const KeySize = 32

// The second of the sets that RFC 9106 recommends. The salt is the same everywhere: who joins
// a cluster does not know yet which one it is.
const (
	argonTime    = 3
	argonMemory  = 64 << 10
	argonThreads = 4
	argonSalt    = "remora cluster password 1"
)

// Key is what the password became. Who has it can join, so it is as secret as the password is, but it does not tell
// the password, which people use in other places too.
type Key [KeySize]byte

// Derive makes the key of a password. It takes a quarter of a second and 64 MiB: once for each launch, never
// for each connection. A password that is empty or too long is ErrInvalid.
func Derive(password string) (Key, error) {
	switch {
	case password == "":
		return Key{}, errdefs.Errorf(errdefs.ErrInvalid, "password: it is empty")
	case len(password) > MaxLength:
		return Key{}, errdefs.Errorf(errdefs.ErrInvalid, "password: %d bytes, at most %d may be", len(password), MaxLength)
	}
	return Key(argon2.IDKey([]byte(password), []byte(argonSalt), argonTime, argonMemory, argonThreads, KeySize)), nil
}

// String hides the key. So do GoString and LogValue.
func (k Key) String() string { return "[password]" }

// GoString hides the key.
func (k Key) GoString() string { return k.String() }

// LogValue hides the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Letters of which no two look or sound alike.
const (
	consonants = "bdfghjklmnprstvz"
	vowels     = "aiou"
)

// generatedWords have 16 bits each.
const generatedWords = 5

// Generate returns a new password of 80 random bits, as five words that can be read out over the telephone.
func Generate() string {
	var raw [2 * generatedWords]byte
	_, _ = rand.Read(raw[:]) // it never fails
	words := make([]string, generatedWords)
	for i := range words {
		n := int(raw[2*i])<<8 | int(raw[2*i+1])
		words[i] = string([]byte{
			consonants[n>>12&15], vowels[n>>10&3], consonants[n>>6&15], vowels[n>>4&3], consonants[n&15],
		})
	}
	return strings.Join(words, "-")
}
