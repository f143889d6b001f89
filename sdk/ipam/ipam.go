// Package ipam makes a Docker IPAM plugin: one that hands out address pools to networks
// and addresses to containers.
//
// [NewAllocator] is a [Driver] that does so from pools of its own, and remembers. Write
// another where addresses come from somewhere else, such as a DHCP server or a company's
// database. [Handler] stands in front of a driver and speaks the protocol: it parses, it
// serialises the calls for one pool, checks what the driver answers, gives back what an
// engine did not wait for, and bounds the time of every call, which no engine does.
//
// # The life of a pool
//
//	RequestPool                       a network is created
//	    RequestAddress (Gateway)      its gateway, and each auxiliary address
//	    RequestAddress                a container starts
//	    ReleaseAddress                it stops
//	ReleasePool                       the network is removed
//
// An engine remembers pools and addresses itself and tells nothing twice, unless the
// driver asks for a replay (see [Capabilities]): then an engine that starts requests
// every pool and every address again, each by its value.
package ipam

import (
	"context"
	"net"
	"net/netip"
)

// Driver hands out pools and addresses. Its methods are safe for concurrent use; the
// Handler calls them one at a time for any one pool.
//
// Errors carry a class of package errdefs: ErrInUse for what somebody has, ErrInvalid for
// a request that cannot be met, ErrUnavailable where no address is left or something is
// out of reach; ErrNotFound from a method that releases counts as success.
//
// A context that ends means that time is over: stop where nothing is left half done.
type Driver interface {
	// DefaultAddressSpaces returns the address spaces in which networks get their pools:
	// those of one host, and those of a Swarm. Pools of one space do not overlap. A driver
	// that has one of the two returns it twice.
	DefaultAddressSpaces(ctx context.Context) (local, global string, err error)

	// RequestPool hands out a pool.
	RequestPool(ctx context.Context, r PoolRequest) (Pool, error)

	// ReleasePool takes a pool back, with whatever addresses of it are still out.
	ReleasePool(ctx context.Context, poolID string) error

	// RequestAddress hands out an address of a pool.
	RequestAddress(ctx context.Context, r AddressRequest) (Address, error)

	// ReleaseAddress takes an address back.
	ReleaseAddress(ctx context.Context, poolID string, a netip.Addr) error
}

// PoolRequest is what an engine wants of a pool.
type PoolRequest struct {
	// AddressSpace is one of DefaultAddressSpaces.
	AddressSpace string
	// Pool is "--subnet"; zero is any.
	Pool netip.Prefix
	// SubPool is "--ip-range": the part of Pool of which addresses are taken where none
	// is named. Zero is all of it.
	SubPool netip.Prefix
	// Options are the "--ipam-opt" pairs, never nil.
	Options map[string]string
	// V6: the pool is to be one of IPv6.
	V6 bool
}

// Pool is a pool that was handed out.
type Pool struct {
	// ID stands for it in later calls. It is the driver's own, and never reused for
	// another pool.
	ID string
	// Prefix is the pool.
	Prefix netip.Prefix
	// Gateway, if not zero, is the gateway's address with the length of the pool; the
	// engine then requests no gateway address unless the user named one.
	Gateway netip.Prefix
	// Data is further data for the network driver, by key.
	Data map[string]string
}

// AddressRequest is what an engine wants of an address.
type AddressRequest struct {
	// PoolID is a [Pool]'s ID.
	PoolID string
	// Address is the one that is wanted; zero is any.
	Address netip.Addr
	// Gateway: it is for the network's gateway.
	Gateway bool
	// MAC is the container's, for a driver that asked for it in [Capabilities], else nil.
	MAC net.HardwareAddr
	// Endpoint is the container's name, from engine 29 on.
	Endpoint string
	// Options are all options as they came, never nil.
	Options map[string]string
}

// Address is an address that was handed out.
type Address struct {
	// Prefix is the address with the length of the pool.
	Prefix netip.Prefix
	// Data is further data for the network driver, by key.
	Data map[string]string
}

// Capabilities is what a driver wants of an engine.
type Capabilities struct {
	// RequiresMACAddress: address requests for containers are to tell the MAC.
	RequiresMACAddress bool
	// RequiresRequestReplay: an engine that starts is to request again every pool and
	// address that it has. A pool may then get a new ID, and an address that is named
	// must be handed out again.
	RequiresRequestReplay bool
}

// Capabler is implemented by a driver that wants more of an engine than the zero
// [Capabilities].
type Capabler interface {
	// Capabilities is called whenever an engine finds the plugin.
	Capabilities() Capabilities
}
