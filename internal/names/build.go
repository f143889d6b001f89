package names

import (
	"cmp"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// remembered is for how long a name that is gone is still taken for one of the cluster's, when somebody asks for it
// without a domain.
const remembered = 10 * time.Minute

// maxGone bounds how many such names there are.
const maxGone = 20_000

// builder makes each zone out of the one before and what has changed since.
type builder struct {
	zone     Zone
	names    tracker[entry]
	networks tracker[record.Network]
	byName   map[string][]*entry
	byAddr   map[netip.Addr][]*entry
	below    map[string]int // how many names have this one as a parent
	gone     map[string]time.Time
	hosts    map[record.Host]int32
	number   map[string]int32 // of a network, by its ID
	bad      int
}

// entry is what one record says.
type entry struct {
	names     []string
	addresses []address
	services  []offer
	broken    bool
}

// offer is a service under its name, such as _http._tcp.
type offer struct {
	name string
	service
}

func newBuilder(cfg Config, now time.Time) *builder {
	b := &builder{
		byName: map[string][]*entry{}, byAddr: map[netip.Addr][]*entry{}, below: map[string]int{}, gone: map[string]time.Time{},
		hosts: map[record.Host]int32{}, number: map[string]int32{"": 0},
	}
	b.zone = Zone{ttl: seconds(cfg.TTL, DefaultTTL), negative: seconds(cfg.Negative, DefaultNegative), serial: uint32(now.Unix())}
	b.zone.names, b.zone.reverse = new(table[string, *node]), new(table[netip.Addr, []string])
	for _, d := range cfg.Domains {
		b.zone.domains = append(b.zone.domains, strings.Trim(strings.ToLower(d), ".")+".")
	}
	if len(b.zone.domains) == 0 {
		b.zone.domains = []string{DefaultDomain + "."}
	}
	return b
}

func seconds(d, or time.Duration) uint32 {
	if d <= 0 {
		d = or
	}
	return uint32(max(d.Round(time.Second), time.Second) / time.Second)
}

// update returns the zone of these records.
func (b *builder) update(names, networks []record.Record, reachable func(record.Host) bool, now time.Time) *Zone {
	added, removed := b.names.sync(names, b.read)
	wider, narrower := b.networks.sync(networks, func(r record.Record) *record.Network {
		n := new(record.Network)
		if json.Unmarshal(r.Body, n) != nil {
			*n = record.Network{}
		}
		return n
	})
	if len(wider)+len(narrower) > 0 {
		b.zone.subnets = b.subnets()
	}
	dirty, moved := map[string]bool{}, map[netip.Addr]bool{}
	for _, e := range removed {
		b.forget(e, dirty, moved)
	}
	for _, e := range added {
		b.take(e, dirty, moved)
	}
	for name, at := range b.gone {
		if now.Sub(at) >= remembered {
			delete(b.gone, name)
			dirty[name] = true
		}
	}
	b.rebuild(dirty, moved, now)
	b.zone.reachable = make([]bool, len(b.hosts))
	for h, i := range b.hosts {
		b.zone.reachable[i] = reachable(h)
	}
	b.zone.serial++
	z := b.zone
	return &z
}

// read takes a record's body apart. What is wrong in it is left out: it does no harm to other names.
func (b *builder) read(r record.Record) *entry {
	var body record.Name
	if json.Unmarshal(r.Body, &body) != nil {
		return &entry{broken: true}
	}
	e, at := new(entry), place{b.networkNumber(body.Network), b.hostNumber(r.Writer)}
	for _, name := range body.Names {
		name = strings.ToLower(name)
		if !valid(name) {
			e.broken = true
		} else if !slices.Contains(e.names, name) {
			e.names = append(e.names, name)
		}
	}
	for _, a := range body.Addresses {
		if a = a.Unmap().WithZone(""); a.IsValid() {
			e.addresses = append(e.addresses, address{a, net.IP(a.AsSlice()), at})
		} else {
			e.broken = true
		}
	}
	if len(e.names) == 0 || len(e.addresses) == 0 {
		return &entry{broken: e.broken}
	}
	for _, s := range Services(body.Service) {
		e.services = append(e.services, offer{s.Name, service{s.Port, e.names[0], at}})
	}
	return e
}

func (b *builder) hostNumber(h record.Host) int32 {
	n, ok := b.hosts[h]
	if !ok {
		n = int32(len(b.hosts))
		b.hosts[h] = n
	}
	return n
}

func (b *builder) networkNumber(id string) int32 {
	n, ok := b.number[id]
	if !ok {
		n = int32(len(b.number))
		b.number[id] = n
	}
	return n
}

func (b *builder) subnets() []subnet {
	var all []subnet
	for _, n := range b.networks.all() {
		for _, p := range n.Subnets {
			if n.ID != "" && p.IsValid() {
				all = append(all, subnet{p.Masked(), b.networkNumber(n.ID)})
			}
		}
	}
	slices.SortFunc(all, func(a, b subnet) int {
		if a.Bits() != b.Bits() {
			return b.Bits() - a.Bits() // the narrowest first, should two overlap
		}
		return a.Addr().Compare(b.Addr())
	})
	return slices.CompactFunc(all, func(a, b subnet) bool { return a == b })
}

// everyName yields the names under which e is found, those of its services too.
func (e *entry) everyName(yield func(string) bool) {
	for _, n := range e.names {
		if !yield(n) {
			return
		}
	}
	for _, s := range e.services {
		if !yield(s.name) {
			return
		}
		for _, n := range e.names {
			if !yield(s.name + "." + n) {
				return
			}
		}
	}
}

func (b *builder) take(e *entry, dirty map[string]bool, moved map[netip.Addr]bool) {
	if e.broken {
		b.bad++
	}
	for name := range e.everyName {
		list := b.byName[name]
		if len(list) == 0 {
			b.count(name, 1, dirty)
		}
		if len(list) == 0 || list[len(list)-1] != e {
			b.byName[name] = append(list, e)
		}
		dirty[name] = true
	}
	for _, a := range e.addresses {
		b.byAddr[a.Addr] = append(b.byAddr[a.Addr], e)
		moved[a.Addr] = true
	}
}

func (b *builder) forget(e *entry, dirty map[string]bool, moved map[netip.Addr]bool) {
	if e.broken {
		b.bad--
	}
	for name := range e.everyName {
		if drop(b.byName, name, e) {
			b.count(name, -1, dirty)
		}
		dirty[name] = true
	}
	for _, a := range e.addresses {
		drop(b.byAddr, a.Addr, e)
		moved[a.Addr] = true
	}
}

// drop takes e off a list, and reports whether it was the last one there.
func drop[K comparable](m map[K][]*entry, k K, e *entry) bool {
	was := len(m[k])
	m[k] = slices.DeleteFunc(m[k], func(o *entry) bool { return o == e })
	left := len(m[k])
	if left == 0 {
		delete(m, k)
	}
	return was > 0 && left == 0
}

// count adds n to each parent of a name.
func (b *builder) count(name string, n int, dirty map[string]bool) {
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return
		}
		if b.below[parent] += n; b.below[parent] == 0 {
			delete(b.below, parent)
		}
		if _, known := dirty[parent]; !known {
			dirty[parent] = false
		}
		name = parent
	}
}

// rebuild makes anew what is looked up by the names and addresses that have changed.
func (b *builder) rebuild(dirty map[string]bool, moved map[netip.Addr]bool, now time.Time) {
	if len(dirty) > 0 {
		names := b.zone.names.edit()
		for name := range dirty {
			before := names.next.get(name)
			n := b.node(name)
			switch {
			case n.there():
				delete(b.gone, name)
			case before.there() && len(b.gone) < maxGone:
				b.gone[name] = now
			}
			_, n.gone = b.gone[name]
			if n.there() || n.parent || n.gone {
				names.set(name, n)
			} else {
				names.delete(name)
			}
		}
		b.zone.names = &names.next
	}
	if len(moved) > 0 {
		reverse := b.zone.reverse.edit()
		for a := range moved {
			var told []string
			for _, e := range b.byAddr[a] {
				if !slices.Contains(told, e.names[0]) {
					told = append(told, e.names[0])
				}
			}
			if len(told) > 0 {
				reverse.set(a, told)
			} else {
				reverse.delete(a)
			}
		}
		b.zone.reverse = &reverse.next
	}
}

func (b *builder) node(name string) *node {
	n := &node{parent: b.below[name] > 0}
	for _, e := range b.byName[name] {
		if slices.Contains(e.names, name) {
			n.addresses = append(n.addresses, e.addresses...)
		}
		for _, s := range e.services {
			under, ok := strings.CutPrefix(name, s.name)
			if ok && (under == "" || under[0] == '.' && slices.Contains(e.names, under[1:])) {
				n.services = append(n.services, s.service)
			}
		}
	}
	slices.SortFunc(n.addresses, func(a, b address) int {
		return cmp.Or(a.Compare(b.Addr), cmp.Compare(a.network, b.network), cmp.Compare(a.host, b.host))
	})
	n.addresses = slices.CompactFunc(n.addresses, func(a, b address) bool { return a.Addr == b.Addr && a.place == b.place })
	return n
}

// Service is one port that a name's record tells.
type Service struct {
	Name string // "_http._tcp"
	Port uint16
}

// Services takes apart how a record tells of its services: "_http._tcp 80, _metrics._tcp 9090". What
// is wrong is left out.
func Services(text string) (all []Service) {
	for one := range strings.SplitSeq(text, ",") {
		f := strings.Fields(one)
		if len(f) != 2 {
			continue
		}
		name := strings.ToLower(f[0])
		port, err := strconv.ParseUint(f[1], 10, 16)
		kind, proto, _ := strings.Cut(name, ".")
		if err != nil || port == 0 || !valid(name) || kind[0] != '_' || proto != "_tcp" && proto != "_udp" && proto != "_sctp" {
			continue
		}
		all = append(all, Service{name, uint16(port)})
	}
	return all
}
