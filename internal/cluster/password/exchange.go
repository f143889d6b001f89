package password

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"

	"github.com/gtank/ristretto255"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Sizes of the two messages of each side.
const (
	ShareSize   = 32
	ConfirmSize = sha512.Size
)

// Channel is what a proof holds for, and for nothing else.
type Channel struct {
	// Exporter is a value that only the two ends of this one TLS connection know.
	Exporter []byte
	// Dialer and Listener are the keys of both ends. The exporter of TLS 1.3 does not cover the dialer's
	// certificate, so they are named here.
	Dialer, Listener []byte
}

// Exchange is one side of one proof. It is used once: Share, then Receive; then the dialer sends what Confirm
// returns, the listener Checks that, and only then sends its own, which the dialer Checks.
type Exchange struct {
	channel Channel
	dialer  bool
	y       *ristretto255.Scalar
	share   []byte
	mac     []byte // key of the confirmations; nil before Receive
	peer    []byte // share of the other side
}

// Start begins a proof on a channel, as the side that dialled it or as the other.
func (k Key) Start(channel Channel, dialer bool) *Exchange {
	var seed [64]byte
	_, _ = rand.Read(seed[:]) // it never fails
	return k.start(channel, dialer, ristretto255.NewScalar().FromUniformBytes(seed[:]))
}

func (k Key) start(channel Channel, dialer bool, y *ristretto255.Scalar) *Exchange {
	g := generator(k[:], lvCat([]byte("remora join 1"), channel.Dialer, channel.Listener), channel.Exporter)
	return &Exchange{channel: channel, dialer: dialer, y: y, share: g.ScalarMult(y, g).Encode(nil)}
}

// Share is the first message to the other side.
func (e *Exchange) Share() []byte { return e.share }

// Receive takes the share of the other side. One with which the result could be foreseen, or that is no
// share at all, is ErrDenied, as is one's own sent back.
func (e *Exchange) Receive(share []byte) error {
	if e.mac != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "password: a second share in one proof")
	}
	k, ok := multiply(e.y, share)
	if !ok || hmac.Equal(share, e.share) {
		return errdefs.Errorf(errdefs.ErrDenied, "password: what the other side sent is no share of a proof")
	}
	e.peer = append([]byte(nil), share...)
	first, second := e.share, e.peer
	if !e.dialer {
		first, second = second, first
	}
	isk := sessionKey(e.channel.Exporter, k, first, nil, second, nil)
	key := sha512.New()
	key.Write([]byte(dsiMAC))
	key.Write(e.channel.Exporter)
	key.Write(isk)
	e.mac = key.Sum(nil)
	return nil
}

// Confirm is the second message to the other side. Nil before Receive.
func (e *Exchange) Confirm() []byte { return e.tag(e.dialer, e.share) }

// Check reports whether the other side's second message is right, that is, whether it knows the
// password and has the same channel.
func (e *Exchange) Check(confirm []byte) bool {
	want := e.tag(!e.dialer, e.peer)
	return want != nil && hmac.Equal(want, confirm)
}

// tag says which side it is of, so that none can be sent back.
func (e *Exchange) tag(dialer bool, share []byte) []byte {
	if e.mac == nil {
		return nil
	}
	side := "listener"
	if dialer {
		side = "dialer"
	}
	m := hmac.New(sha512.New, e.mac)
	m.Write(lvCat(share, []byte(side)))
	return m.Sum(nil)
}
