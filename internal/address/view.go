package address

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Store is where all hosts' records lie.
type Store interface {
	Self() record.Host
	// Records returns the living records of a kind, and Bequeathed those of hosts that were removed since: what
	// they gave away stays given, and their networks stay.
	Records(kind string) []record.Record
	Bequeathed(kind string) []record.Record
	// Put writes a record of this host; it is on disk when Put returns.
	Put(kind, name string, body any) error
	Delete(kind, name string) error
	// Watch returns a channel on which there is a value after records of these kinds have changed.
	Watch(kinds ...string) (changed <-chan struct{}, stop func())
	// Changes counts how often records of these kinds have changed. It is another number as soon as Records says something else.
	Changes(kinds ...string) uint64
}

// kinds are those from which a view is made.
var kinds = []string{
	record.KindMember, record.KindNetwork, record.KindRange, record.KindGrant, record.KindRemoval, record.KindSettled,
	record.KindEnding,
}

// clusterRange is the space from which subnets are cut.
const clusterRange = ""

// Space is addresses of which hosts own parts: those of a network, or the cluster's range.
type Space struct {
	ID       string // of the network; empty is the cluster's range
	Name     string // of the network
	Prefixes []netip.Prefix
	Range    []netip.Prefix // parts from which addresses are given; never empty
	Creator  record.Host    // to whom all belonged at first
	life     uint64         // of the creator when it made the space
	network  record.Network
}

func (s Space) String() string {
	if s.ID == clusterRange {
		return "the cluster's range"
	}
	return fmt.Sprintf("network %q", s.Name)
}

// bits returns the length of what a host takes of the part p of the space at a time.
func (s Space) bits(p netip.Prefix) int {
	for _, list := range [][]netip.Prefix{s.Range, s.Prefixes} {
		for _, whole := range list {
			switch {
			case !whole.Overlaps(p):
			case s.ID == clusterRange:
				return subnetBits(whole)
			default:
				return blockBits(whole)
			}
		}
	}
	return p.Bits()
}

// removal is one that counts: of several, the one that all hosts prefer.
type removal struct {
	victim, writer record.Host
	incarnation    uint64
	nickname       string
	by             record.Host // who takes over: the writer, or who removed that
	rank           int
}

// view is what this host knows at one moment. Once made it is read only, but for what is worked out when first asked for.
type view struct {
	self     record.Host
	spaces   map[string]Space
	members  map[record.Host]member
	grants   map[string][]grant // by space
	removals map[record.Host]removal
	settled  map[record.Host]map[record.Host]record.Settled // by victim, then writer

	owned map[string][]held
	wrong map[string]int

	buried map[string]Space // networks that are gone although their record is there, by ID
	ended  []string         // IDs of this host's endings of networks of which there is no record any more

	past, bodies decoded

	hashes   map[record.Host]string
	finished map[record.Host]bool
}

type member struct {
	nickname string
	life     uint64
}

// decoded is records that were read, so that only those that have changed are read at the next look.
type decoded map[record.Key]body

type body struct {
	version   record.Version
	signature [ed25519.SignatureSize]byte
	value     any
}

func look(s Store, past decoded) *view {
	v := &view{
		past: past, bodies: make(decoded, len(past)),
		self: s.Self(), spaces: map[string]Space{}, members: map[record.Host]member{}, grants: map[string][]grant{},
		removals: map[record.Host]removal{}, settled: map[record.Host]map[record.Host]record.Settled{},
		owned: map[string][]held{}, wrong: map[string]int{}, buried: map[string]Space{}, hashes: map[record.Host]string{}, finished: map[record.Host]bool{},
	}
	each(v, s, record.KindMember, func(r record.Record, b record.Member) {
		v.members[r.Writer] = member{b.Nickname, r.Incarnation}
	})
	created := map[string]record.Record{}
	each(v, s, record.KindNetwork, func(r record.Record, b record.Network) {
		if old, ok := created[b.ID]; b.ID == clusterRange || ok && !before(b, r, v.spaces[b.ID].network, old) {
			return
		}
		created[b.ID] = r
		sp := Space{ID: b.ID, Name: r.Name, Prefixes: maskedOf(b.Subnets), Range: maskedOf(b.Range), Creator: r.Writer, life: r.Incarnation, network: b}
		if len(sp.Range) == 0 {
			sp.Range = sp.Prefixes
		}
		v.spaces[b.ID] = sp
	})
	v.lookAtEndings(s)
	var founder record.Record
	each(v, s, record.KindRange, func(r record.Record, b record.Range) {
		if founder.Kind != "" && r.Writer.Compare(founder.Writer) > 0 {
			return
		}
		founder = r
		p := maskedOf(b.Prefixes)
		v.spaces[clusterRange] = Space{Prefixes: p, Range: p, Creator: r.Writer, life: r.Incarnation}
	})
	each(v, s, record.KindGrant, func(r record.Record, b record.Grant) {
		if b.Prefix = b.Prefix.Masked(); b.Prefix.IsValid() {
			v.grants[b.Space] = append(v.grants[b.Space], grant{b, r.Writer})
		}
	})
	v.lookAtRemovals(s)
	v.lookAtOverlaps()
	v.past = nil
	return v
}

// before reports whether a network counts rather than another of the same name or ID.
func before(a record.Network, ra record.Record, b record.Network, rb record.Record) bool {
	return cmp.Or(a.Created.Compare(b.Created), ra.Writer.Compare(rb.Writer)) < 0
}

func (v *view) lookAtRemovals(s Store) {
	each(v, s, record.KindRemoval, func(r record.Record, b record.Removal) {
		var victim record.Host
		if victim.UnmarshalText([]byte(r.Name)) != nil {
			return
		}
		old, ok := v.removals[victim]
		if better := cmp.Or(cmp.Compare(b.Incarnation, old.incarnation), old.writer.Compare(r.Writer)); !ok || better > 0 {
			v.removals[victim] = removal{victim: victim, writer: r.Writer, incarnation: b.Incarnation, nickname: b.Nickname}
		}
	})
	for victim, r := range v.removals {
		r.by, r.rank = r.writer, 1
		for seen := map[record.Host]bool{victim: true}; v.removed(r.by) && !seen[r.by]; r.rank++ {
			seen[r.by] = true
			r.by = v.removals[r.by].writer
		}
		v.removals[victim] = r
	}
	each(v, s, record.KindSettled, func(r record.Record, b record.Settled) {
		var victim record.Host
		if victim.UnmarshalText([]byte(r.Name)) != nil {
			return
		}
		if v.settled[victim] == nil {
			v.settled[victim] = map[record.Host]record.Settled{}
		}
		v.settled[victim][r.Writer] = b
	})
}

// each calls f with the records of a kind that can be read; the others are left alone.
func each[T any](v *view, s Store, kind string, f func(record.Record, T)) {
	for _, r := range slices.Concat(s.Records(kind), s.Bequeathed(kind)) {
		if _, twice := v.bodies[r.Key]; twice {
			continue
		}
		b := v.past[r.Key]
		if b.version != r.Version || b.signature != r.Signature {
			b = body{version: r.Version, signature: r.Signature}
			var value T
			if json.Unmarshal(r.Body, &value) == nil {
				b.value = value
			}
		}
		v.bodies[r.Key] = b
		if value, ok := b.value.(T); ok {
			f(r, value)
		}
	}
}

// removed reports whether h was removed, and has not joined anew.
func (v *view) removed(h record.Host) bool {
	r, ok := v.removals[h]
	return ok && r.incarnation >= v.members[h].life
}

// owners returns who owns what of a space.
func (v *view) owners(space string) []held {
	if owned, ok := v.owned[space]; ok {
		return owned
	}
	s := v.spaces[space]
	v.owned[space], v.wrong[space] = owners(s.Prefixes, &link{to: s.Creator, life: s.life}, v.grants[space])
	return v.owned[space]
}

// mine returns what of a space this host owns and may use.
func (v *view) mine(space string) []held {
	var mine []held
	for _, h := range v.owners(space) {
		if h.to == v.self && v.usable(h.link) {
			mine = append(mine, h)
		}
	}
	return mine
}

// usable reports whether what this host owns by l is beyond doubt: it has not been removed since, and none of those
// through whose hands it went was removed before all hosts knew of it.
func (v *view) usable(l *link) bool {
	if r, ok := v.removals[v.self]; ok && l.life <= r.incarnation {
		return false
	}
	for ; l != nil; l = l.before {
		r, ok := v.removals[l.from]
		if !ok || v.done(r) {
			continue
		}
		if s, ok := v.settled[r.victim][v.self]; ok && s.Incarnation == r.incarnation && (s.Late || s.Known != v.known(r.victim)) {
			return false
		}
	}
	return true
}

// known is a hash of all that was given from victim's and to it, and of the networks that it made.
func (v *view) known(victim record.Host) string {
	if hash, ok := v.hashes[victim]; ok {
		return hash
	}
	var lines []string
	for space, grants := range v.grants {
		for _, g := range grants {
			if g.from() == victim || g.To == victim {
				lines = append(lines, fmt.Sprintf("%s %s %d %s %s\n", space, g.Prefix, g.Serial, g.writer, g.To))
			}
		}
	}
	for id, s := range v.spaces {
		if s.Creator == victim {
			lines = append(lines, fmt.Sprintf("%s %s\n", id, s.Prefixes))
		}
	}
	slices.Sort(lines)
	hash := sha256.New()
	for _, line := range lines {
		hash.Write([]byte(line))
	}
	v.hashes[victim] = hex.EncodeToString(hash.Sum(nil)[:16])
	return v.hashes[victim]
}

// done reports whether all that r's victim owned is taken over, and this host knows of all of that.
func (v *view) done(r removal) bool {
	done, ok := v.finished[r.victim]
	if !ok {
		done = v.taken(r) && !v.owns(r)
		v.finished[r.victim] = done
	}
	return done
}

// owns reports whether r's victim still owns anything: a grant to it may come to light late.
func (v *view) owns(r removal) bool {
	for space := range v.spaces {
		for _, h := range v.owners(space) {
			if h.to == r.victim && h.life <= r.incarnation {
				return true
			}
		}
	}
	return false
}

func (v *view) taken(r removal) bool {
	for writer, s := range v.settled[r.victim] {
		if s.Taken == nil || s.Incarnation != r.incarnation {
			continue
		}
		n := 0
		for _, grants := range v.grants {
			for _, g := range grants {
				if g.writer == writer && g.From == r.victim {
					n++
				}
			}
		}
		if n >= *s.Taken {
			return true
		}
	}
	return false
}

// named returns the network of a name that counts.
func (v *view) named(name string) (found Space, ok bool) {
	for _, s := range v.spaces {
		if s.ID == clusterRange || s.Name != name {
			continue
		}
		if !ok || s.before(found) {
			found, ok = s, true
		}
	}
	return found, ok
}

// before reports whether a network counts rather than another one.
func (s Space) before(o Space) bool {
	by := func(s Space) record.Record { return record.Record{Key: record.Key{Writer: s.Creator}} }
	return before(s.network, by(s), o.network, by(o))
}

// subnets returns those of all networks, each with its network: the one that counts, where hosts that were apart made several.
func (v *view) subnets() map[netip.Prefix]Space {
	all := map[netip.Prefix]Space{}
	for _, s := range v.spaces {
		if s.ID == clusterRange {
			continue
		}
		for _, p := range s.Prefixes {
			if old, ok := all[p]; !ok || s.before(old) {
				all[p] = s
			}
		}
	}
	return all
}

// nickname returns what people call h.
func (v *view) nickname(h record.Host) string {
	return cmp.Or(v.members[h].nickname, v.removals[h].nickname, h.Short())
}

// maskedOf leaves out what cannot be a subnet.
func maskedOf(list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if p.IsValid() && p.Bits() > 0 {
			out = append(out, p.Masked())
		}
	}
	return out
}
