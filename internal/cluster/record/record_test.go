package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func sample() Record {
	return Record{
		Key: Key{Kind: KindNetwork, Name: "blue"}, Version: Version{Incarnation: 3, Counter: 7}, Cluster: Cluster{1, 2},
		Written: time.UnixMilli(1_800_000_000_123), Body: []byte(`{"id":"x"}`),
	}
}

func sign(t *testing.T, r Record, seed byte) Record {
	t.Helper()
	r, err := Sign(r, key(seed))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	deleted := sample()
	deleted.Deleted, deleted.Body = true, nil
	var b []byte
	want := []Record{sign(t, sample(), 1), sign(t, deleted, 2)}
	for _, r := range want {
		before := len(b)
		b = r.Append(b)
		if len(b)-before != r.Size() {
			t.Errorf("Size is %d, %d bytes were appended", r.Size(), len(b)-before)
		}
	}
	for i, w := range want {
		var got Record
		var err error
		if got, b, err = Decode(b); err != nil {
			t.Fatal(err)
		}
		if got.Body = append([]byte(nil), got.Body...); !got.Verify() {
			t.Errorf("record %d: the signature does not fit", i)
		}
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("record %d (-want +got):\n%s", i, diff)
		}
	}
	if len(b) > 0 {
		t.Errorf("%d bytes are left", len(b))
	}
}

// TestEveryByteIsSigned changes each byte in turn: what can still be decoded is not believed.
func TestEveryByteIsSigned(t *testing.T) {
	whole := sign(t, sample(), 1).Append(nil)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x20
		r, rest, err := Decode(b)
		if err == nil && len(rest) == 0 && r.Verify() {
			t.Errorf("byte %d may be changed", i)
		}
		if err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("byte %d: %v is not ErrInvalid", i, err)
		}
		if _, _, err := Decode(whole[:i]); err == nil {
			t.Errorf("the first %d bytes are a record", i)
		}
	}
}

func TestLimits(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"no cluster":         func(r *Record) { r.Cluster = Cluster{} },
		"no kind":            func(r *Record) { r.Kind = "" },
		"a long kind":        func(r *Record) { r.Kind = strings.Repeat("a", MaxKind+1) },
		"a kind with spaces": func(r *Record) { r.Kind = "a b" },
		"a long name":        func(r *Record) { r.Name = strings.Repeat("a", MaxName+1) },
		"a name not UTF-8":   func(r *Record) { r.Name = "\xff" },
		"a large body":       func(r *Record) { r.Body = make([]byte, MaxBody+1) },
		"a body of nothing":  func(r *Record) { r.Deleted = true },
		"no incarnation":     func(r *Record) { r.Incarnation = 0 },
		"no counter":         func(r *Record) { r.Counter = 0 },
	} {
		r := sample()
		change(&r)
		if _, err := Sign(r, key(1)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: Sign says %v", name, err)
		}
	}
}

func TestNewer(t *testing.T) {
	at := func(incarnation, counter uint64) Record {
		r := sample()
		r.Version = Version{Incarnation: incarnation, Counter: counter}
		return sign(t, r, 1)
	}
	order := []Record{at(1, 5), at(1, 6), at(2, 1), at(2, 9)}
	for i, a := range order {
		for j, b := range order {
			if a.Newer(b) != (i > j) {
				t.Errorf("%v is newer than %v: %v", a.Version, b.Version, i <= j)
			}
		}
	}
	twin := sample()
	twin.Version, twin.Body = order[0].Version, []byte(`{"id":"y"}`)
	twin = sign(t, twin, 1)
	if twin.Newer(order[0]) == order[0].Newer(twin) {
		t.Error("of two records of one version, each or none is newer")
	}
}

func TestText(t *testing.T) {
	var h Host
	copy(h[:], key(1).Public().(ed25519.PublicKey))
	text, err := h.MarshalText()
	if err != nil || len(text) != 52 || h.Short() != string(text[:8]) {
		t.Fatalf("%q, %q, %v", text, h.Short(), err)
	}
	var back Host
	if err := back.UnmarshalText(bytes.ToUpper(text)); err != nil || back != h {
		t.Errorf("%v, %v", back, err)
	}
	for _, wrong := range []string{"", "abc", string(text) + "a", string(text[:51]) + "1"} {
		if err := back.UnmarshalText([]byte(wrong)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	var c Cluster
	if err := c.UnmarshalText([]byte(Cluster{1, 2}.String())); err != nil || c != (Cluster{1, 2}) {
		t.Errorf("%v, %v", c, err)
	}
}

func FuzzDecode(f *testing.F) {
	r, err := Sign(sample(), key(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Append(nil))
	f.Add(append(r.Append(nil), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, rest, err := Decode(b)
		if err != nil {
			return
		}
		if again := r.Append(nil); !bytes.Equal(again, b[:len(b)-len(rest)]) {
			t.Errorf("%x is encoded as %x", b[:len(b)-len(rest)], again)
		}
	})
}
