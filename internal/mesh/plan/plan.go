// Package plan says what the data plane of a host has to be: from what the hosts of the cluster tell each
// other and what this one has found out by itself to the links, routes, peers and rules that the kernel
// should have. It reads nothing and changes nothing, so the same input is always the same plan, and where two
// hosts have to agree, as on how they reach each other, both compute it from the same records.
package plan

import (
	"net"
	"net/netip"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
)

// Names of interfaces, all of which begin with the same letters. Those of a network end with ten digits of its ID.
const (
	Prefix    = "rm-"
	Tunnel    = "rm-wg"
	VXLAN4    = "rm-vx4"
	VXLAN6    = "rm-vx6"
	bridge    = "rm-"
	multicast = "rm-m"
)

// Floor is the least MTU of a path: what the tunnel leaves of a path below of 1280 bytes, than which there is none
// narrower. IPv6 has a floor of its own.
const (
	Floor  = 1200
	floor6 = 1280
)

// Keepalive keeps the way open through the NAT that a host is behind.
const Keepalive = 25

// What VXLAN takes of a packet, by the family of the addresses outside.
const (
	vxlan4Overhead = 50
	vxlan6Overhead = 70
)

// Block is addresses of a network that a host owns.
type Block struct {
	Network string // its ID
	Prefix  netip.Prefix
	Host    record.Host
}

// Attachment is a network that this host has a bridge for.
type Attachment struct {
	Network string
	// Addresses are those of the bridge, one of each family, with the length of the network's prefix.
	Addresses []netip.Prefix
	// Exposed are addresses of this host at which all of the network may reach it. At others it
	// answers pings.
	Exposed []netip.Addr
}

// Input is all that a plan depends on.
type Input struct {
	Self     record.Host
	Private  tunnel.Key // of this host's tunnel; zero where it has none
	Secret   []byte     // of the cluster, for the key of each pair; none is no such key
	Members  map[record.Host]record.Member
	Links    map[record.Host]record.Links
	Networks []record.Network
	Blocks   []Block
	Attached []Attachment
	Facts    Facts
	// TunnelPort and VXLANPort are those of all hosts.
	TunnelPort, VXLANPort uint16
	// FastPath has plain packets between neighbours pass this host without its firewall.
	FastPath bool
}

// Facts are what this host has found out by itself.
type Facts struct {
	// Uplink is the MTU of the link below.
	Uplink int
	// OnLink are addresses of others that are reached with no router between, by which link.
	OnLink map[netip.Addr]string
	// Down are hosts whose tunnel does not answer.
	Down map[record.Host]bool
	// MTU is what was found to fit the path to a host.
	MTU map[record.Host]int
	// Endpoint is which address of a host is tried.
	Endpoint map[record.Host]netip.AddrPort
}

// Plan is what the kernel should have.
type Plan struct {
	Tunnel    *tunnel.Config
	TunnelMTU int
	// Self is this host's address inside the tunnel and the VXLAN, which nobody but its fellows can reach.
	Self    netip.Prefix
	VXLANs  []VXLAN
	Bridges []Bridge
	// Keep are bridges of networks of which no record is here. Containers may be on them: they are left as they are.
	Keep       []string
	Routes     []Route
	Neighbours []Neighbour
	FDB        []FDB
	Rules      Rules
	Shortcuts  []Shortcut
	Paths      []Path
	Problems   []string
	IPv6       bool // that some network has it
}

// VXLAN is a VXLAN link: the one over which plain packets are routed, or a network's port for multicast.
type VXLAN struct {
	Name   string
	VNI    int
	Port   uint16
	MAC    string
	MTU    int
	Local  netip.Addr // also says the family
	Bridge string     // of which it is a port; none for the routed one
	Hop    netip.Addr // the routed one's own address, which others route by
}

// Bridge is the bridge of a network.
type Bridge struct {
	Name      string
	Network   string
	MTU       int
	MAC       string
	Addresses []netip.Prefix
	Multicast bool
}

// Route is the way to one block.
type Route struct {
	Dst  netip.Prefix
	Link string
	Via  netip.Addr // none is on the link
	Src  netip.Addr
	MTU  int
}

// Neighbour is a permanent one.
type Neighbour struct {
	Link string
	Addr netip.Addr
	MAC  string
}

// FDB says to which host a VXLAN link sends what is for a MAC.
type FDB struct {
	Link   string
	MAC    string
	Remote netip.Addr
}

// Rules are what the firewall lets through.
type Rules struct {
	VXLANPort uint16
	// Senders are the addresses from which VXLAN packets are taken.
	Senders []netip.Addr
	// Own are the addresses of this host's bridges.
	Own []netip.Addr
	// Narrow are blocks of IPv6 behind a path that does not carry what IPv6 asks of every path.
	Narrow []netip.Prefix
	Nets   []Net
}

// Net is one network. Blocks of this host are in neither list.
type Net struct {
	Name     string // part of the names of chains and sets
	Bridge   string // none: this host only relays
	Internal bool
	Subnets  []netip.Prefix
	Sealed   []netip.Prefix // blocks that come through the tunnel
	Plain    []netip.Prefix // blocks that come over VXLAN or by themselves
	Exposed  []netip.Addr
}

// How a host is reached.
const (
	Sealed = "wireguard" // through the tunnel
	Routed = "route"     // by itself, on the same link
	Boxed  = "vxlan"     // in VXLAN
	None   = "none"
)

// Path is how a host is reached.
type Path struct {
	Host     record.Host
	Nickname string
	Kind     string
	Via      record.Host    // the host that passes it on; zero is direct
	Endpoint netip.AddrPort // where its tunnel is tried
	Address  netip.Addr     // of a plain path
	Link     string         // of a Routed one
	MTU      int
	Problem  string
	// Inner is its address inside the tunnel or VXLAN.
	Inner netip.Addr
	Key   tunnel.Key
}

// Compute returns the plan.
func Compute(in Input) Plan {
	c := compute{Input: in, self: in.Members[in.Self]}
	c.resolve()
	c.paths()
	c.Plan.Self = netip.PrefixFrom(Inner(in.Self), innerBits)
	c.links()
	c.bridges()
	c.ways()
	c.tunnel()
	c.rules()
	c.shortcuts()
	return c.Plan
}

type compute struct {
	Input
	Plan
	self   record.Member
	nets   map[string]record.Network
	blocks []Block // of networks that exist, none within another
	path   map[record.Host]Path
	plain  map[record.Host]Path // for networks that are not encrypted
	hasV6  bool

	endpoints map[record.Host][]netip.AddrPort
}

// BridgeName returns the name of the bridge of a network.
func BridgeName(network string) string { return bridge + short(network) }

func short(network string) string { return network[:min(10, len(network))] }

// MAC returns a MAC, as the kernel writes it, that is made from a seed and so always the same.
func mac(seed ...[]byte) string {
	h := digest("mac", seed...)
	return net.HardwareAddr{0x02, h[0], h[1], h[2], h[3], h[4]}.String()
}
