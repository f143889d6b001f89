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
	KindRange   = "range"   // whence the subnets of networks are cut; no name; the founder's
	KindGrant   = "grant"   // addresses that the writer gives to another host; "SPACE PREFIX SERIAL"
	KindRemoval = "removal" // a host that is no more; its Host
	KindSettled = "settled" // what the writer knows of a removed host's addresses; that Host
	KindSwarm   = "swarm"   // a network of a Swarm that the writer has; its ID in Swarm
	KindClaim   = "claim"   // an address of such a network that a task has on the writer; "ID ADDRESS"
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
	Founded time.Time      `json:"founded"` // its cluster, as it knows
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
	// Engine: an engine's request for addresses made it, and it goes with the last engine that has it.
	Engine bool `json:"engine,omitempty"`
	// Told: that engine has made it since. Labels are those of the engine's network that the other hosts' are to have, too.
	Told   bool              `json:"told,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Going: it is to be removed on every host.
	Going bool `json:"going,omitempty"`
}

// Swarm is a network of a Swarm, which that has decided on: all hosts that have it say the same. Its ID is made of the one in
// Swarm. It is gone with the last of these hosts.
type Swarm struct {
	Network
	// Gateways are the addresses of the bridges, the same on all hosts, with the length of the subnet.
	Gateways []netip.Prefix `json:"gateways"`
}

// Claim is an address that Swarm has given to a task of the writer's. Nobody but Swarm gives it out.
type Claim struct {
	Network string     `json:"network"` // its ID in the cluster
	Address netip.Addr `json:"address"`
	Since   time.Time  `json:"since"`
}

// Range is the addresses of the cluster. The founder writes it once.
type Range struct {
	Prefixes []netip.Prefix `json:"prefixes"`
}

// Grant gives Prefix of a space to a host. Only who owns it may write that, and never takes it back: who got
// it gives it on. The creator of a network owns all of it at first, and the founder the cluster's range. No
// grant is ever changed, nor deleted while its space is there, be the writer removed.
type Grant struct {
	Space  string       `json:"space"` // ID of a network, or "" for the cluster's range, from which subnets are cut
	Prefix netip.Prefix `json:"prefix"`
	Serial uint64       `json:"serial"` // higher than that of every grant by which any of it came to its owner
	To     Host         `json:"to"`
	Life   uint64       `json:"life"` // incarnation of To, which a removal of an earlier one does not touch
	// From is set where the writer takes over what a removed host owned. Rank is 1 then, and one more for each
	// remover that was removed itself before it could do so.
	From Host `json:"from,omitzero"`
	Rank int  `json:"rank,omitempty"`
}

// Removal says that a host is gone for good. What it owned is the writer's, once every other host has written a
// Settled that agrees. One that comes back has a higher incarnation and joins anew. Of several removals the one of the
// highest incarnation counts, then that of the lowest writer.
type Removal struct {
	Incarnation uint64 `json:"incarnation"` // the last one that was seen
	Nickname    string `json:"nickname"`
}

// Settled is what a host knows of the addresses that a removed host gave away and lost: nobody uses what it
// owned before all agree about that, so that none is given twice.
type Settled struct {
	Incarnation uint64 `json:"incarnation"`     // of the removal
	By          Host   `json:"by"`              // who takes over, as the writer sees it
	Known       string `json:"known"`           // hash of the grants from that host, and of the networks that it made
	Late        bool   `json:"late,omitempty"`  // Known has changed since the writer first wrote it
	Taken       *int   `json:"taken,omitempty"` // all is taken over, by this number of grants of the writer
}

// Name is what can be looked up.
type Name struct {
	Network   string       `json:"network,omitempty"` // its ID; none is every network
	Names     []string     `json:"names"`             // without the domain, lower case
	Addresses []netip.Addr `json:"addresses"`
	Container string       `json:"container,omitempty"`
	Service   string       `json:"service,omitempty"` // its ports, for SRV: "_http._tcp 80, _metrics._tcp 9090"
}
