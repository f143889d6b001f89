package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A digest is its format, one byte, and for each writer the first eight bytes of its key and the sum of the
// hashes of its living records. Tombstones are not in it: hosts forget them at different times. Who missed one
// still holds what it buries, and differs by that.
const (
	digestFormat = 1
	digestEntry  = 16
)

// Digest returns in 16 bytes a writer what this host holds.
func (s *Store) Digest() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.summary())
}

// Root is a hash of the digest: equal for hosts that hold the same.
func (s *Store) Root() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.digest == nil || s.root64 == 0 {
		sum := sha256.Sum256(s.summary())
		s.root64 = binary.BigEndian.Uint64(sum[:])
	}
	return s.root64
}

// summary returns the digest, which nobody changes. Callers hold mu.
func (s *Store) summary() []byte {
	if s.digest == nil {
		s.root64 = 0
		hosts := make([]record.Host, 0, len(s.writers))
		for host, w := range s.writers {
			if w.hash != 0 {
				hosts = append(hosts, host)
			}
		}
		slices.SortFunc(hosts, record.Host.Compare)
		s.digest = append(make([]byte, 0, 1+digestEntry*len(hosts)), digestFormat)
		for _, host := range hosts {
			s.digest = append(s.digest, host[:8]...)
			s.digest = binary.BigEndian.AppendUint64(s.digest, s.writers[host].hash)
		}
	}
	return s.digest
}

// Missing returns what the host with that digest may lack: all records, tombstones too, of each writer of
// which it holds something else. A digest that is none is ErrInvalid.
func (s *Store) Missing(digest []byte) ([]record.Record, error) {
	theirs, err := readDigest(digest)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var missing []record.Record
	for host, w := range s.writers {
		if theirs[[8]byte(host[:8])] == w.hash {
			continue
		}
		for _, h := range w.records {
			missing = append(missing, h.Record)
		}
	}
	return missing, nil
}

// Seen returns the highest incarnation of a host of which something is held.
func (s *Store) Seen(h record.Host) (incarnation uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w := s.writers[h]; w != nil {
		for _, held := range w.records {
			incarnation = max(incarnation, held.Incarnation)
		}
	}
	return incarnation
}

// RemovedUpTo returns the incarnation up to which a host is removed; 0 if it never was.
func (s *Store) RemovedUpTo(h record.Host) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.removals[h]
}

// Agrees reports whether the host with that digest holds the same.
func (s *Store) Agrees(digest []byte) bool { return bytes.Equal(s.Digest(), digest) }

func readDigest(b []byte) (map[[8]byte]uint64, error) {
	if len(b) == 0 || b[0] != digestFormat || (len(b)-1)%digestEntry != 0 {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "digest: %d bytes that are none", len(b))
	}
	b = b[1:]
	theirs := make(map[[8]byte]uint64, len(b)/digestEntry)
	for ; len(b) > 0; b = b[digestEntry:] {
		host := [8]byte(b)
		if _, twice := theirs[host]; twice {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "digest: a writer is in it twice")
		}
		theirs[host] = binary.BigEndian.Uint64(b[8:])
	}
	return theirs, nil
}
