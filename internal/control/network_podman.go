package control

import (
	"context"
	"net/netip"
)

// The methods by which Podman's containers are connected.
const (
	MethodNetworkPodmanCreate   = "Network.PodmanCreate"
	MethodNetworkPodmanSetup    = "Network.PodmanSetup"
	MethodNetworkPodmanTeardown = "Network.PodmanTeardown"
	MethodNetworkInstallPodman  = "Network.InstallPodman"
)

// NetworksPodman has the methods about Podman, whose network program starts a plugin for each call.
type NetworksPodman interface {
	// PodmanCreate finds the network of a name, or makes it on all hosts.
	PodmanCreate(ctx context.Context, req NetworkPodmanCreateRequest) (NetworkPodmanCreated, error)
	// PodmanSetup connects a container, and PodmanTeardown undoes it, also for one that was never connected.
	PodmanSetup(ctx context.Context, req NetworkPodmanRequest) (NetworkPodmanConnected, error)
	PodmanTeardown(ctx context.Context, req NetworkPodmanRequest) error
	// InstallPodman puts the plugin where Podman looks for it, or takes it away again.
	InstallPodman(ctx context.Context, req NetworkInstallPodmanRequest) (NetworkInstalledPodman, error)
}

// NetworkPodmanCreateRequest asks for a network. Without Subnets it has those that it has already, or one that is cut from the
// cluster's range.
type NetworkPodmanCreateRequest struct {
	NetworkCreateRequest
	// IPv6 asks for a subnet of IPv6 too.
	IPv6 bool `json:"IPv6,omitempty"`
}

// NetworkPodmanCreated answers [MethodNetworkPodmanCreate].
type NetworkPodmanCreated struct {
	// Gateways are this host's addresses in the subnets, with their lengths.
	Gateways []netip.Prefix `json:"Gateways"`
	Internal bool           `json:"Internal"`
}

// NetworkPodmanRequest names a container and a network, and says how it is to be connected.
type NetworkPodmanRequest struct {
	Network string `json:"Network"`
	// Subnets are those that Podman knows the network by.
	Subnets   []netip.Prefix `json:"Subnets,omitempty"`
	Container string         `json:"Container"`
	Name      string         `json:"Name,omitempty"`
	Aliases   []string       `json:"Aliases,omitempty"`
	// Namespace is the path of the container's network namespace, Interface what the interface is called there.
	Namespace string `json:"Namespace,omitempty"`
	Interface string `json:"Interface,omitempty"`
	// Addresses and MAC are those that a person chose.
	Addresses []netip.Addr `json:"Addresses,omitempty"`
	MAC       string       `json:"MAC,omitempty"`
}

// NetworkPodmanConnected answers [MethodNetworkPodmanSetup].
type NetworkPodmanConnected struct {
	MAC       string         `json:"MAC"`
	Addresses []netip.Prefix `json:"Addresses"`
	// Servers answer names, Search is where they are looked up.
	Servers []netip.Addr `json:"Servers"`
	Search  []string     `json:"Search"`
}

// NetworkInstallPodmanRequest asks for the plugin in Dir, or where it is Undo for its removal.
type NetworkInstallPodmanRequest struct {
	Dir  string `json:"Dir,omitempty"`
	Undo bool   `json:"Undo,omitempty"`
}

// NetworkInstalledPodman answers [MethodNetworkInstallPodman].
type NetworkInstalledPodman struct {
	// File is what was written or removed; empty is nothing.
	File string `json:"File,omitempty"`
}
