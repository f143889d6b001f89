package catalog

import (
	"context"
	"net/netip"
	"os"

	"github.com/remora-plugins/remora/sdk/network"
)

// Network describes a driver of networks across hosts.
type Network struct {
	Name, Doc string // as of [Volume]
	// Options are those that a network takes.
	Options []Key
	// Choose reads what was chosen for a network. An option that is wrong is ErrInvalid.
	Choose func(network.Network) (Choices, error)
	// Open makes the driver. One that is opened without networks and mesh has to do DeleteEndpoint and Leave all the same.
	Open func(NetworkEnv) network.Driver
}

// Networks are those that the hosts of the cluster know.
type Networks interface {
	// Lookup returns the ID of the network to which a pool belongs. A pool of another IPAM driver, or one
	// that no network has, is an error that says what to do.
	Lookup(p network.Pool) (id string, err error)
	// Configure settles the choices for a network; it fails if the network is otherwise already.
	Configure(ctx context.Context, id string, c Choices) error
}

// Mesh makes the networks on this host.
type Mesh interface {
	// EnsureNetwork makes the bridge of a network with these addresses, or finds that it is there.
	EnsureNetwork(ctx context.Context, id string, addresses ...netip.Prefix) (Bridge, error)
	// RemoveNetwork takes it away; one that is not there is no error.
	RemoveNetwork(ctx context.Context, id string) error
	// AttachPort connects an interface to the bridge.
	AttachPort(id, name string) error
}

// Bridge is what containers have to know of their network's.
type Bridge struct {
	Name string
	MTU  int // of containers' interfaces
	// Routes are those that a container needs beside the one that its address brings.
	Routes []network.Route
}

// Choices are those of a network for which the same is true on all hosts. nil is none.
type Choices struct {
	Encrypted, Multicast, Internal *bool
	MTU                            *int
}

// NetworkEnv is what the daemon gives to a driver of networks. All is required.
type NetworkEnv struct {
	Networks Networks
	Mesh     Mesh
	// Root is the directory in which the driver remembers which of an engine's networks is which of the
	// cluster's: by the time one is removed, the cluster may know it no more.
	Root *os.Root
}

// Joined is implemented by a driver that tells whether an endpoint is connected, for one whose sandbox may have gone without a
// word.
type Joined interface {
	Joined(ep network.Endpoint) (bool, error)
}
