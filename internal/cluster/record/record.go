// Package record is what the hosts of a cluster tell each other: small facts, each written by one host
// alone, numbered and signed by it. Every host holds all of them, and of two records about the same thing
// each host prefers the same one, so that it does not matter in which order they arrive.
//
// The package says what a record is and which of two wins. Where records lie is package store's, and how
// they travel is package cluster's. What may stand in a body is listed in kinds.go.
package record

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/base32"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Limits of a record. What exceeds them is never sent and never taken.
const (
	MaxKind = 32
	MaxName = 255
	MaxBody = 16 << 10
)

// Cluster is the identity of a cluster, drawn at random when it is founded. The zero value is no cluster.
type Cluster [16]byte

// Host is the identity of a host: the public half of its Ed25519 key. The zero value is no host.
type Host [ed25519.PublicKeySize]byte

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String returns 26 lower-case letters and digits.
func (c Cluster) String() string { return encoding.EncodeToString(c[:]) }

// String returns 52 lower-case letters and digits.
func (h Host) String() string { return encoding.EncodeToString(h[:]) }

// Short returns the first eight letters and digits, which is what people are shown.
func (h Host) Short() string { return h.String()[:8] }

// IsZero reports whether h is no host.
func (h Host) IsZero() bool { return h == Host{} }

// Compare orders hosts, as slices.SortFunc wants it.
func (h Host) Compare(o Host) int { return bytes.Compare(h[:], o[:]) }

// MarshalText returns what String does.
func (h Host) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote. Anything else is ErrInvalid.
func (h *Host) UnmarshalText(text []byte) error { return decodeText(h[:], text, "host") }

// MarshalText returns what String does.
func (c Cluster) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText wrote. Anything else is ErrInvalid.
func (c *Cluster) UnmarshalText(text []byte) error { return decodeText(c[:], text, "cluster") }

func decodeText(to, text []byte, what string) error {
	raw, err := encoding.DecodeString(strings.ToLower(string(text)))
	if err != nil || len(raw) != len(to) {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s %q: not %d letters and digits", what, text, encoding.EncodedLen(len(to)))
	}
	copy(to, raw)
	return nil
}

// Version says which of two records of a host is the later one.
type Version struct {
	// Incarnation grows each time the host opens its store, so that one that lost what it wrote
	// last is believed again.
	Incarnation uint64
	// Counter grows with each record that the host writes, whatever it is about.
	Counter uint64
}

// Compare orders versions, the earlier first.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Incarnation, o.Incarnation), cmp.Compare(v.Counter, o.Counter))
}

// Key is what a record is about. There is one record for each.
type Key struct {
	Writer     Host
	Kind, Name string
}

// Record is one fact. It is a value: who has one never changes its Body.
type Record struct {
	Key
	Version
	Cluster Cluster
	// Written is when the host wrote it, by its own clock, to the millisecond. It decides nothing
	// but when a deleted record is forgotten.
	Written time.Time
	// Deleted says that the fact is no more. Body is empty then.
	Deleted bool
	// Body is JSON, as kinds.go has it. Fields that are not known are left alone: the host
	// that wrote them may be newer.
	Body      []byte
	Signature [ed25519.SignatureSize]byte
}

// Newer reports whether r replaces o, which is about the same Key. Of two records with the same version, which a
// host cloned with its state can write, every host prefers the same.
func (r Record) Newer(o Record) bool {
	return cmp.Or(r.Version.Compare(o.Version), bytes.Compare(r.Signature[:], o.Signature[:])) > 0
}
