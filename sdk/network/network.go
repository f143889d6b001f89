// Package network makes a Docker network plugin out of a driver of six methods.
//
// A driver knows how to connect containers and nothing else: no protocol, no locks, no
// book-keeping. [Handler] stands in front of it and does once what every plugin needs:
// it speaks Docker's network protocol, parses the options, remembers networks and
// endpoints across restarts, since an engine never tells of them again, serialises the
// calls for one endpoint, takes back what failed half way, refuses answers that an
// engine would choke on, and bounds the time of every call, which no engine does.
//
// # The life of a network
//
//	CreateNetwork
//	    CreateEndpoint          a container is about to start; its addresses are settled
//	        Join                the interface is there; the engine moves it into the sandbox
//	            ProgramExternal, RevokeExternal     while it is the container's way out
//	        Leave
//	    DeleteEndpoint
//	DeleteNetwork
//
// The Handler keeps to this order even if an engine does not: an endpoint that is deleted
// is left first, a network that is deleted has no endpoints any more. A call that fails,
// or whose caller has gone, is undone by the opposite call, because an engine does not
// do so; and what could not be deleted is deleted at the next chance, at the latest when
// the plugin starts again.
//
// Any of these may be called again after it succeeded, and any that undoes may be called
// for what never was or is gone. A driver therefore looks at the world before it changes
// it. It need not remember what it was told: each call brings the network and the
// endpoint whole.
//
// # What more a driver may do
//
// A driver says that it can do more by having a method more. [Handler] looks for these,
// and nobody else does: [Scoper], [ExternalConnector], [Informer], [Allocator],
// [GatewaySkipper], [NodeWatcher], [Restorer], [io.Closer].
package network

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
)

// Driver is one kind of network. Its methods are safe for concurrent use: the Handler
// calls them one at a time for any one endpoint, and those for a network alone while no
// call runs for an endpoint of it.
//
// Errors carry a class of package errdefs: ErrInvalid for an option that is wrong,
// ErrUnavailable where something is out of reach; ErrNotFound from a method that undoes
// counts as success. Their text need not name network or endpoint, which the Handler puts
// in front.
//
// A context that ends means that time is over: stop where nothing is left half done.
// Maps and slices of arguments belong to the Handler and must not be changed. A method
// that undoes may be given a Network or Endpoint of which nothing but the ID is known.
type Driver interface {
	// CreateNetwork makes the network, or finds that it is made. An unknown option is
	// ErrInvalid with the keys that would have been right.
	CreateNetwork(ctx context.Context, n Network) error

	// DeleteNetwork undoes CreateNetwork.
	DeleteNetwork(ctx context.Context, n Network) error

	// CreateEndpoint makes ready to connect one container. The addresses and the MAC
	// that are set in ep are settled; for one that is not, the driver may choose and
	// return it.
	CreateEndpoint(ctx context.Context, n Network, ep Endpoint) (Assigned, error)

	// DeleteEndpoint undoes CreateEndpoint.
	DeleteEndpoint(ctx context.Context, n Network, ep Endpoint) error

	// Join makes an interface on the host, in the network namespace of the engine, and
	// returns its name. The engine moves it into the sandbox, gives it its addresses
	// from ep, and sets the routes. An answer without an interface is allowed: the
	// container gets none from this network.
	Join(ctx context.Context, n Network, ep Endpoint, s Sandbox) (Attachment, error)

	// Leave undoes Join. The engine has moved the interface back, or it has gone with
	// the sandbox; the driver deletes it.
	Leave(ctx context.Context, n Network, ep Endpoint) error
}

// Network is a network as the engine described it when it was created.
type Network struct {
	// ID is 64 hexadecimal digits, or 25 letters and digits from Swarm.
	ID string
	// Options are the "-o" pairs of "docker network create".
	Options map[string]string `json:",omitempty"`
	// EnableIPv4 is true with engines before 28, which cannot do without.
	EnableIPv4 bool
	// EnableIPv6 is "--ipv6".
	EnableIPv6 bool
	// Internal is "--internal": no way out.
	Internal bool
	// IPv4 and IPv6 are the address pools.
	IPv4 []Pool `json:",omitempty"`
	IPv6 []Pool `json:",omitempty"`
	// Raw are the options of the engine that have no field here, as JSON.
	Raw map[string]json.RawMessage `json:",omitempty"`
}

// Pool is one address pool of a network.
type Pool struct {
	// AddressSpace is the IPAM driver's.
	AddressSpace string
	// Prefix is the whole pool.
	Prefix netip.Prefix
	// Gateway is the gateway's address in the pool, zero if there is none.
	Gateway netip.Prefix
	// Aux are the addresses of "--aux-address", by name.
	Aux map[string]netip.Prefix `json:",omitempty"`
}

// Endpoint is the connection of one container to one network. It has a new ID at each
// start of the container.
type Endpoint struct {
	// ID is 64 hexadecimal digits.
	ID string
	// IPv4 and IPv6 are its addresses, each zero if there is none. Once the endpoint is
	// made they include what the driver assigned.
	IPv4, IPv6 netip.Prefix
	// MAC is nil while nobody has chosen one.
	MAC net.HardwareAddr `json:",omitempty"`
	// Options are those of CreateEndpoint.
	Options EndpointOptions
	// Sandbox is set while the endpoint is joined to one.
	Sandbox *Sandbox `json:",omitempty"`
}

// Sandbox is what a container's network lives in.
type Sandbox struct {
	// Key is the path of its network namespace.
	Key string
	// Options are those of Join.
	Options EndpointOptions
}

// EndpointOptions are what the engine tells of an endpoint's container. Which fields are
// set depends on the call and the engine.
type EndpointOptions struct {
	// ExposedPorts are those of "EXPOSE" and "--expose".
	ExposedPorts []Port `json:",omitempty"`
	// PortMap is "--publish": publishing is the driver's own business, in
	// [ExternalConnector].
	PortMap []PortBinding `json:",omitempty"`
	// DNS are name servers of the container, from few engines.
	DNS []netip.Addr `json:",omitempty"`
	// InterfaceName is the name that the interface is to have in the sandbox, since
	// engine 28. The engine gives it; the driver need not.
	InterfaceName string `json:",omitempty"`
	// Sysctls are those of the interface, since engine 28, separated by commas.
	Sysctls string `json:",omitempty"`
	// NoProxy6To4: another endpoint is the container's way out for IPv6, so published
	// ports must not be forwarded from IPv6 to this one. Since engine 28.
	NoProxy6To4 bool `json:",omitempty"`
	// DriverOpts are "--driver-opt" pairs.
	DriverOpts map[string]string `json:",omitempty"`
	// Raw are the options of the engine that have no field here, as JSON.
	Raw map[string]json.RawMessage `json:",omitempty"`
}

// Assigned is what a driver chose for an endpoint. It may choose only what was not
// settled: the Handler refuses an address or a MAC that differs from the settled one.
type Assigned struct {
	IPv4, IPv6 netip.Prefix
	MAC        net.HardwareAddr
}

// Attachment is the answer to Join.
type Attachment struct {
	// Interface is the interface on the host that the engine is to move into the
	// sandbox (at most 15 bytes, netdevice(7)); empty is none.
	Interface string
	// Prefix is the beginning of its name in the sandbox, to which the engine appends a
	// number; empty is "eth".
	Prefix string
	// Name is its whole name in the sandbox, for engines of another make: dockerd up to 29
	// takes the field and goes by Prefix alone. There it is the user who gives a name, since
	// 28, which is [EndpointOptions].InterfaceName.
	Name string
	// Gateway and GatewayIPv6 are where the default routes lead, zero for none. They
	// must lie in a pool of the network; an IPv6 one may be link-local.
	Gateway, GatewayIPv6 netip.Addr
	// Routes are further routes in the sandbox.
	Routes []Route
	// NoGatewayBridge: the engine is not to connect the container to its bridge
	// docker_gwbridge, which it does for one that has no gateway here.
	NoGatewayBridge bool
}

// Route is a route in a sandbox. Without a NextHop the destination is on the link itself.
type Route struct {
	Destination netip.Prefix
	NextHop     netip.Addr
}
