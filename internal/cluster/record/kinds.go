package record

import (
	"net/netip"
	"time"
)

// The kinds of records, with what their Name is. Their bodies are the types below: all that the hosts of
// a cluster tell each other is on this page.
const (
	KindMember  = "member"  // the writer itself; no name
	KindLinks   = "links"   // what the writer sees of its neighbours; no name
	KindNetwork = "network" // a network; its name
	KindGrant   = "grant"   // addresses that the writer gives to another host; "SPACE PREFIX"
	KindRemoval = "removal" // a host that is no more; its Host
	KindName    = "name"    // names of one container in one network, or given by hand; "ENGINE/CONTAINER/NETWORK" or "hand/NAME"
)

// Member is what a host says of itself.
type Member struct {
	Nickname string           `json:"nickname"` // the host's name, for people
	Version  string           `json:"version"`  // of the program
	Protocol int              `json:"protocol"` // of the links, for hosts that are newer or older
	Control  []netip.AddrPort `json:"control"`  // where it can be dialled, as it knows; none behind NAT
	// TunnelKey is its WireGuard key, Tunnel where that can be reached, as it knows and as its
	// neighbours told it. Without a key its data is not encrypted.
	TunnelKey *[32]byte        `json:"tunnelKey,omitempty"`
	Tunnel    []netip.AddrPort `json:"tunnel,omitempty"`
	// Trusted are the subnets in which this host sends and takes data that is not encrypted, from
	// hosts that say the same.
	Trusted []netip.Prefix `json:"trusted,omitempty"`
	Started time.Time      `json:"started"`
}

// Links is what a host sees of those it has a stream with: no more than a dozen, whatever the cluster's size.
type Links struct {
	Links []Link `json:"links"`
}

// Link is one of them.
type Link struct {
	Host   Host           `json:"host"`
	RTT    time.Duration  `json:"rtt"`
	MTU    int            `json:"mtu,omitempty"`   // of the path below; 0 is not known
	Tunnel netip.AddrPort `json:"tunnel,omitzero"` // whence its WireGuard packets come
}

// Network is a network that is the same on all hosts. Two hosts that make one of the same name while they are
// apart write two records: the one that was created first counts, then that of the lower host.
type Network struct {
	ID        string         `json:"id"` // of the cluster's own, 16 hexadecimal digits
	Subnets   []netip.Prefix `json:"subnets"`
	Range     []netip.Prefix `json:"range,omitempty"` // parts of the subnets from which addresses are given; none is all
	Plain     bool           `json:"plain,omitempty"`
	Multicast bool           `json:"multicast,omitempty"`
	Internal  bool           `json:"internal,omitempty"`
	MTU       int            `json:"mtu,omitempty"`
	Created   time.Time      `json:"created"`
}

// Grant gives Prefix of a space to a host. Only who owns it may write that, and never takes it back: who got
// it gives it on.
type Grant struct {
	Space  string       `json:"space"` // ID of a network, or "" for the cluster's range, from which subnets are cut
	Prefix netip.Prefix `json:"prefix"`
	To     Host         `json:"to"`
}

// Removal says that a host is gone for good. What it owned is the writer's. One that comes back has a higher
// incarnation and joins anew.
type Removal struct {
	Incarnation uint64 `json:"incarnation"` // the last one that was seen
	Nickname    string `json:"nickname"`
}

// Name is what can be looked up.
type Name struct {
	Network   string       `json:"network,omitempty"` // its ID; none is every network
	Names     []string     `json:"names"`             // without the domain, lower case
	Addresses []netip.Addr `json:"addresses"`
	Container string       `json:"container,omitempty"`
	Service   string       `json:"service,omitempty"` // its ports, for SRV: "_http._tcp 80, _metrics._tcp 9090"
}
