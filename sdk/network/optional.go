package network

import (
	"context"
	"net/netip"
)

// Scope is how far the word of a driver reaches.
type Scope string

// The scopes.
const (
	// Local: every engine has networks of its own.
	Local Scope = "local"
	// Global: networks belong to a Swarm; its manager allocates them, and each node
	// creates them when a task needs them. An engine that is in no Swarm refuses to
	// create one.
	Global Scope = "global"
)

// Scoper is implemented by a driver whose networks, or their connectivity, are not of
// this host alone. Without it both scopes are [Local].
type Scoper interface {
	// Scope returns who decides about networks, and how far they connect; an empty
	// connectivity is the same as scope. A driver that connects hosts without Swarm is
	// Local with Global connectivity.
	Scope() (scope, connectivity Scope)
}

// ExternalConnector is implemented by a driver that gives containers their way out, and
// publishes their ports.
type ExternalConnector interface {
	// ProgramExternal is called once an endpoint becomes the way out of its container,
	// which takes a gateway in the answer to Join and a network that is not internal. o
	// are its ports. An error fails the start of the container.
	ProgramExternal(ctx context.Context, n Network, ep Endpoint, o EndpointOptions) error
	// RevokeExternal undoes it: the container goes, or another endpoint is its way out.
	RevokeExternal(ctx context.Context, n Network, ep Endpoint) error
}

// Informer is implemented by a driver that has something to say of an endpoint.
type Informer interface {
	// EndpointInfo returns what is shown of the endpoint; it must be fit for JSON. An
	// error is logged and nothing is shown, because an engine before 23 would not start
	// the container.
	EndpointInfo(ctx context.Context, n Network, ep Endpoint) (map[string]any, error)
}

// Allocator is implemented by a driver of [Global] scope that has something to decide for
// the whole Swarm, such as the number of a VXLAN. It runs on a manager. Without it the
// nodes get the options that the user gave.
type Allocator interface {
	// AllocateNetwork returns the options with which every node creates the network.
	AllocateNetwork(ctx context.Context, n Network) (options map[string]string, err error)
	// FreeNetwork undoes it.
	FreeNetwork(ctx context.Context, id string) error
}

// GatewaySkipper is implemented by a driver that needs no gateway address for some
// networks. Engines ask since 28.
type GatewaySkipper interface {
	// SkipGateway tells for which families no gateway address need be reserved for the
	// network that is about to be created, of which the options alone are known.
	SkipGateway(ctx context.Context, n Network) (ipv4, ipv6 bool, err error)
}

// Node is a node of a Swarm.
type Node struct {
	// Address is where other nodes reach it, BindAddress where it listens; either may be
	// zero.
	Address, BindAddress netip.Addr
	// Self: it is this one.
	Self bool
}

// NodeWatcher is implemented by a driver that wants to know the nodes of the Swarm.
type NodeWatcher interface {
	// NodeJoined tells of a node, perhaps once more.
	NodeJoined(ctx context.Context, node Node) error
	// NodeLeft tells that it has gone.
	NodeLeft(ctx context.Context, node Node) error
}

// Restored is a network, and its endpoints by their IDs' order, that a Handler before
// this one had.
type Restored struct {
	Network   Network
	Endpoints []Endpoint
}

// Restorer is implemented by a driver that has something to build up again when it
// starts: after a reboot nothing of its networks is left on the host, and no engine
// creates them again.
type Restorer interface {
	// Restore is called once, before every other method, and within [Options.Timeout]. An error
	// fails [NewHandler].
	Restore(ctx context.Context, networks []Restored) error
}

// State is where a Handler remembers networks and endpoints: one text for each network,
// replaced as a whole. Calls for one key do not overlap. [Dir] is one; another might keep
// them in a database that the driver has anyway.
type State interface {
	// Load returns every text by its key.
	Load(ctx context.Context) (map[string][]byte, error)
	// Save replaces the text of a key, and returns when it would survive a crash.
	Save(ctx context.Context, key string, data []byte) error
	// Delete forgets a key; one that is not there succeeds.
	Delete(ctx context.Context, key string) error
}
