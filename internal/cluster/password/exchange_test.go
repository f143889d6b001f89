package password

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gtank/ristretto255"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func channel(exporter string) Channel {
	return Channel{Exporter: []byte(exporter), Dialer: []byte("dialer's key"), Listener: []byte("listener's key")}
}

// prove runs both sides as they do it on a connection, and says what each of them believes.
func prove(t *testing.T, dialer, listener *Exchange) (listenerBelieves, dialerBelieves bool) {
	t.Helper()
	if err := listener.Receive(dialer.Share()); err != nil {
		t.Fatal(err)
	}
	if err := dialer.Receive(listener.Share()); err != nil {
		t.Fatal(err)
	}
	return listener.Check(dialer.Confirm()), dialer.Check(listener.Confirm())
}

func TestProof(t *testing.T) {
	right, wrong := Key{1}, Key{2}
	for name, test := range map[string]struct {
		dialer, listener         Key
		dialerSees, listenerSees Channel
		want                     bool
	}{
		"the same password": {right, right, channel("x"), channel("x"), true},
		"a wrong password":  {wrong, right, channel("x"), channel("x"), false},
		"a man in the middle, who has a channel with each": {right, right, channel("x"), channel("y"), false},
		"a dialer with another key": {
			right, right, channel("x"),
			Channel{Exporter: []byte("x"), Dialer: []byte("mallory"), Listener: []byte("listener's key")},
			false,
		},
		"a listener with another key": {
			right, right, channel("x"),
			Channel{Exporter: []byte("x"), Dialer: []byte("dialer's key"), Listener: []byte("mallory")},
			false,
		},
		"keys cut elsewhere": {
			right, right, channel("x"),
			Channel{Exporter: []byte("x"), Dialer: []byte("dialer's keyl"), Listener: []byte("istener's key")},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, d := prove(t, test.dialer.Start(test.dialerSees, true), test.listener.Start(test.listenerSees, false))
			if l != test.want || d != test.want {
				t.Errorf("the listener believes: %v, the dialer: %v, want %v", l, d, test.want)
			}
		})
	}
}

// TestReplay sends what an honest dialer once sent, to a listener on the same channel and on another.
func TestReplay(t *testing.T) {
	k := Key{1}
	dialer, listener := k.Start(channel("x"), true), k.Start(channel("x"), false)
	prove(t, dialer, listener)
	for _, exporter := range []string{"x", "y"} {
		again := k.Start(channel(exporter), false)
		if err := again.Receive(dialer.Share()); err != nil {
			t.Fatal(err)
		}
		if again.Check(dialer.Confirm()) {
			t.Errorf("a proof is believed a second time, on channel %q", exporter)
		}
	}
}

// TestReflection has somebody without the password send back what a host says.
func TestReflection(t *testing.T) {
	k := Key{1}
	for _, dialer := range []bool{true, false} {
		e := k.Start(channel("x"), dialer)
		if err := e.Receive(e.Share()); !errors.Is(err, errdefs.ErrDenied) {
			t.Errorf("its own share: %v", err)
		}
		if e.Confirm() != nil || e.Check(nil) || e.Check([]byte{}) {
			t.Error("there is a confirmation without a share")
		}
	}
	// Two runs of the same host, joined crosswise: each dialled, or each was dialled.
	for _, dialer := range []bool{true, false} {
		a, b := k.Start(channel("x"), dialer), k.Start(channel("x"), dialer)
		if x, y := prove(t, a, b); x || y {
			t.Errorf("two sides, both dialers: %v, believe each other", dialer)
		}
	}
	a, b := k.Start(channel("x"), true), k.Start(channel("x"), false)
	prove(t, a, b)
	if a.Check(a.Confirm()) || b.Check(b.Confirm()) {
		t.Error("a confirmation may be sent back")
	}
}

func TestSharesThatAreNone(t *testing.T) {
	e := Key{1}.Start(channel("x"), true)
	for name, share := range map[string][]byte{
		"nothing":                     nil,
		"the identity":                make([]byte, ShareSize),
		"too short":                   make([]byte, ShareSize-1),
		"too long":                    append(Key{1}.Start(channel("x"), false).Share(), 0),
		"the field's prime":           append(append([]byte{0xed}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f), // 0 in another spelling
		"order 2 on the curve":        append(append([]byte{0xec}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f), // -1
		"1, of order 4 or no element": append([]byte{1}, make([]byte, 31)...),
	} {
		if err := e.Receive(share); !errors.Is(err, errdefs.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
		if e.Confirm() != nil {
			t.Errorf("%s: there is a confirmation", name)
		}
	}
	if err := e.Receive(Key{1}.Start(channel("x"), false).Share()); err != nil {
		t.Errorf("a right share after them: %v", err)
	}
	if err := e.Receive(Key{1}.Start(channel("x"), false).Share()); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a second share: %v", err)
	}
}

// TestNothingToGuess shows that the shares, all that is sent before somebody has shown to know the password, fit
// every password: for each there is a secret scalar with which it would have come to the very same message. The
// scalar is computed by what nobody else has, the logarithm between the two generators.
func TestNothingToGuess(t *testing.T) {
	logarithm := func(b byte) *ristretto255.Scalar {
		return ristretto255.NewScalar().FromUniformBytes(bytes.Repeat([]byte{b}, 64))
	}
	r1, r2, y1 := logarithm(1), logarithm(2), logarithm(3)
	g1 := ristretto255.NewElement().ScalarBaseMult(r1)
	g2 := ristretto255.NewElement().ScalarBaseMult(r2)
	share := ristretto255.NewElement().ScalarMult(y1, g1)
	y2 := ristretto255.NewScalar().Multiply(ristretto255.NewScalar().Multiply(y1, r1), ristretto255.NewScalar().Invert(r2))
	if ristretto255.NewElement().ScalarMult(y2, g2).Equal(share) != 1 {
		t.Error("a share tells one generator from another")
	}

	// Somebody without the password who listens learns from a run with the dialer all but its confirmation's
	// key. With every public value in the place of the product, none of it fits, not even with the right password.
	k, ch := Key{1}, channel("x")
	dialer, listener := k.Start(ch, true), k.Start(ch, false)
	prove(t, dialer, listener)
	g := generator(k[:], lvCat([]byte("remora join 1"), ch.Dialer, ch.Listener), ch.Exporter)
	sum := ristretto255.NewElement()
	_ = sum.Decode(dialer.Share())
	other := ristretto255.NewElement()
	_ = other.Decode(listener.Share())
	for _, product := range [][]byte{g.Encode(nil), dialer.Share(), listener.Share(), sum.Add(sum, other).Encode(nil), make([]byte, 32)} {
		isk := sessionKey(ch.Exporter, product, dialer.Share(), nil, listener.Share(), nil)
		spy := &Exchange{channel: ch, dialer: true, share: dialer.Share(), peer: listener.Share(), mac: isk}
		if spy.Check(listener.Confirm()) || bytes.Equal(spy.Confirm(), dialer.Confirm()) {
			t.Errorf("%x opens the proof", product)
		}
	}
}

func FuzzReceive(f *testing.F) {
	k := Key{1}
	f.Add(k.Start(channel("x"), false).Share(), make([]byte, ConfirmSize))
	f.Add(make([]byte, ShareSize), []byte{})
	f.Fuzz(func(t *testing.T, share, confirm []byte) {
		e := k.Start(channel("x"), true)
		if err := e.Receive(share); err != nil && (e.Confirm() != nil || !errors.Is(err, errdefs.ErrDenied)) {
			t.Errorf("%x: %v", share, err)
		}
		if e.Check(confirm) {
			t.Errorf("%x and %x are a proof", share, confirm)
		}
	})
}

// BenchmarkProof is what one proof costs both sides together.
func BenchmarkProof(b *testing.B) {
	k := Key{1}
	for b.Loop() {
		d, l := k.Start(channel("x"), true), k.Start(channel("x"), false)
		if l.Receive(d.Share()) != nil || d.Receive(l.Share()) != nil || !l.Check(d.Confirm()) || !d.Check(l.Confirm()) {
			b.Fatal("no proof")
		}
	}
}
