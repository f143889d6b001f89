package control

import (
	"context"
	"net/netip"
	"strings"
	"time"
)

// The methods about the network across hosts.
const (
	MethodNetworkLaunch     = "Network.Launch"
	MethodNetworkConnect    = "Network.Connect"
	MethodNetworkForget     = "Network.Forget"
	MethodNetworkStatus     = "Network.Status"
	MethodNetworkStop       = "Network.Stop"
	MethodNetworkReset      = "Network.Reset"
	MethodNetworkRemovePeer = "Network.RemovePeer"
	MethodNetworkCreate     = "Network.Create"
	MethodNetworkRemove     = "Network.Remove"
	MethodNetworkExpose     = "Network.Expose"
	MethodNetworkHide       = "Network.Hide"
	MethodNetworkAttach     = "Network.Attach"
	MethodNetworkDetach     = "Network.Detach"
	MethodNetworkAddName    = "Network.AddName"
	MethodNetworkRemoveName = "Network.RemoveName"
	MethodNetworkLookup     = "Network.Lookup"
	MethodNetworkDNS        = "Network.DNS"
	MethodNetworkInstallDNS = "Network.InstallDNS"
)

// Networks does what the methods Network.* ask for. Every method but Launch and Status is ErrUnavailable before
// the network was launched, and each is idempotent.
type Networks interface {
	NetworksCluster
	NetworksMade
	NetworksNames
	NetworksPodman
}

// NetworksCluster has the methods about the hosts.
type NetworksCluster interface {
	// Launch has this host found a cluster, or join that of one of the peers. What was launched comes up
	// again by itself when the daemon starts; peers that are given again are added to those that are
	// remembered.
	Launch(ctx context.Context, req NetworkLaunchRequest) (NetworkLaunched, error)
	// Connect adds hosts to dial, or with Replace makes them all there are.
	Connect(ctx context.Context, req NetworkConnectRequest) error
	// Forget drops hosts to dial. What is connected stays connected.
	Forget(ctx context.Context, req NetworkPeersRequest) error
	// Status answers from memory.
	Status(ctx context.Context) (NetworkStatus, error)
	// Stop leaves the cluster without a word: containers go on talking.
	Stop(ctx context.Context) error
	// Reset gives back what this host owns and leaves no trace on it.
	Reset(ctx context.Context, req NetworkResetRequest) error
	// RemovePeer declares hosts gone for good, takes over their addresses and shuts them out.
	RemovePeer(ctx context.Context, req NetworkPeersRequest) (NetworkRemoved, error)
}

// NetworksMade has the methods about single networks.
type NetworksMade interface {
	// Create makes a network on all hosts, and Remove unmakes it.
	Create(ctx context.Context, req NetworkCreateRequest) (NetworkInfo, error)
	Remove(ctx context.Context, req NetworkRequest) error
	// Expose lets the containers of a network reach this host, at its own address there, and Hide takes that back.
	Expose(ctx context.Context, req NetworkExposeRequest) (NetworkExposed, error)
	Hide(ctx context.Context, req NetworkRequest) error
	// Attach puts a container of this host onto a network, and Detach takes it off.
	Attach(ctx context.Context, req NetworkAttachRequest) (NetworkAttached, error)
	Detach(ctx context.Context, req NetworkAttachRequest) error
}

// NetworksNames has the methods about names.
type NetworksNames interface {
	// AddName gives a name to addresses, until RemoveName takes it back.
	AddName(ctx context.Context, req NetworkNameRequest) error
	RemoveName(ctx context.Context, req NetworkNameRequest) error
	// Lookup answers what a name is.
	Lookup(ctx context.Context, req NetworkNameRequest) (NetworkNames, error)
	// DNS tells where this host's DNS server can be asked.
	DNS(ctx context.Context) (NetworkDNS, error)
	// InstallDNS has the engine tell all its containers of this host's DNS server, or not any more.
	InstallDNS(ctx context.Context, req NetworkInstallDNSRequest) (NetworkInstalledDNS, error)
}

// NetworkLaunchRequest says how this host takes part. What is left out is as at the last launch, and at the first as
// the comments say.
type NetworkLaunchRequest struct {
	// Peers are hosts to dial, as HOST or HOST:PORT. Without any the host founds a cluster.
	Peers []string `json:"Peers,omitempty"`
	// Password is what all hosts know; without it, and without NoPassword, one is generated.
	Password   string `json:"Password,omitempty"`
	NoPassword bool   `json:"NoPassword,omitempty"`
	// Nickname is for people; the host's name.
	Nickname string `json:"Nickname,omitempty"`
	// Listen is where other hosts dial this one; ":6783". Tunnel is the UDP port of data; 6784.
	Listen string `json:"Listen,omitempty"`
	Tunnel uint16 `json:"Tunnel,omitempty"`
	// Advertise are addresses at which other hosts reach this one; those of its interfaces.
	Advertise []netip.Addr `json:"Advertise,omitempty"`
	// Range is where subnets are cut from, and Subnet that of the network "remora"; 10.32.0.0/12 and its first /16.
	// Only who founds a cluster may say.
	Range  netip.Prefix `json:"Range,omitzero"`
	Subnet netip.Prefix `json:"Subnet,omitzero"`
	// Trusted are subnets in which data is not encrypted.
	Trusted []netip.Prefix `json:"Trusted,omitempty"`
	// Domain is the domain of names; "remora.local".
	Domain string `json:"Domain,omitempty"`
	// MTU is that of the path to other hosts, where it need not be found out; 0 finds out.
	MTU int `json:"MTU,omitempty"`
}

// NetworkLaunched answers [MethodNetworkLaunch].
type NetworkLaunched struct {
	Cluster string `json:"Cluster"`
	// Founded says that this launch founded it.
	Founded bool `json:"Founded"`
	// Password is one that was generated.
	Password string `json:"Password,omitempty"`
	// Listen is where other hosts dial this one.
	Listen []netip.AddrPort `json:"Listen"`
	// Warnings are for who launched it.
	Warnings []string `json:"Warnings,omitempty"`
}

// NetworkConnectRequest names hosts to dial.
type NetworkConnectRequest struct {
	Peers   []string `json:"Peers"`
	Replace bool     `json:"Replace,omitempty"`
}

// NetworkPeersRequest names hosts: to [MethodNetworkForget] as they were given, else by nickname or identity.
type NetworkPeersRequest struct {
	Peers []string `json:"Peers"`
}

// NetworkResetRequest says how to reset. Force leaves even where no peer is there to take what this host owns.
type NetworkResetRequest struct {
	Force bool `json:"Force,omitempty"`
}

// NetworkRemoved answers [MethodNetworkRemovePeer].
type NetworkRemoved struct {
	// Peers are those that were removed, by nickname, with the number of addresses that this host took over.
	Peers map[string]uint64 `json:"Peers"`
}

// NetworkRequest names a network.
type NetworkRequest struct {
	Name string `json:"Name"`
}

// NetworkExposeRequest names a network, "remora" if empty, and a name that this host is to have there, if any.
type NetworkExposeRequest struct {
	Network string `json:"Network,omitempty"`
	Name    string `json:"Name,omitempty"`
}

// NetworkAttachRequest names a container, and a network, "remora" if empty. Addresses, at most one of each family, are those that
// the container is to have; without them they are chosen.
type NetworkAttachRequest struct {
	Container string       `json:"Container"`
	Network   string       `json:"Network,omitempty"`
	Addresses []netip.Addr `json:"Addresses,omitempty"`
}

// NetworkAttached answers [MethodNetworkAttach].
type NetworkAttached struct {
	// Addresses are those that the container has; none while it does not run.
	Addresses []netip.Addr `json:"Addresses,omitempty"`
}

// NetworkExposed answers [MethodNetworkExpose].
type NetworkExposed struct {
	Addresses []netip.Addr `json:"Addresses"`
}

// NetworkCreateRequest asks for a network. Without Subnets one is cut from the cluster's range, and with IPv6 one of that family too
// where there is none among them.
type NetworkCreateRequest struct {
	Name     string            `json:"Name"`
	Subnets  []netip.Prefix    `json:"Subnets,omitempty"`
	IPv6     bool              `json:"IPv6,omitempty"`
	Range    []netip.Prefix    `json:"Range,omitempty"`
	Internal bool              `json:"Internal,omitempty"`
	Options  map[string]string `json:"Options,omitempty"`
}

// NetworkNameRequest names what can be looked up.
type NetworkNameRequest struct {
	Name      string       `json:"Name"`
	Addresses []netip.Addr `json:"Addresses,omitempty"`
	Container string       `json:"Container,omitempty"`
}

// NetworkDNS answers [MethodNetworkDNS].
type NetworkDNS struct {
	Domain  string       `json:"Domain"`
	Servers []netip.Addr `json:"Servers"`
	Entries int          `json:"Entries"`
	// Installed says that the engine has them for all its containers.
	Installed bool `json:"Installed"`
	// Answered counts the questions that were answered out of the cluster's names, Forwarded those that other servers were asked,
	// Failed those of them that none answered, Refused those of who is not served, and Dropped those that were too many.
	Answered  uint64 `json:"Answered"`
	Forwarded uint64 `json:"Forwarded"`
	Failed    uint64 `json:"Failed"`
	Refused   uint64 `json:"Refused"`
	Dropped   uint64 `json:"Dropped"`
}

// NetworkInstallDNSRequest asks for a change of the engine's configuration file. Without Apply it is shown alone.
type NetworkInstallDNSRequest struct {
	// File is the file; empty is the engine's usual one.
	File string `json:"File,omitempty"`
	// Undo takes back what was installed.
	Undo  bool `json:"Undo,omitempty"`
	Apply bool `json:"Apply,omitempty"`
}

// NetworkInstalledDNS answers [MethodNetworkInstallDNS].
type NetworkInstalledDNS struct {
	// Diff is the change; empty is none.
	Diff string `json:"Diff"`
	// Done says that it was written: the engine has to be restarted.
	Done bool `json:"Done"`
}

// NetworkNames answers [MethodNetworkLookup].
type NetworkNames struct {
	// Names is never null.
	Names []NetworkName `json:"Names"`
}

// NetworkName is a name that can be looked up.
type NetworkName struct {
	Name      string       `json:"Name"`
	Addresses []netip.Addr `json:"Addresses"`
	Container string       `json:"Container,omitempty"`
	Network   string       `json:"Network,omitempty"`
	Peer      string       `json:"Peer"`
	// Reachable says that the peer is.
	Reachable bool `json:"Reachable"`
}

// NetworkStatus answers [MethodNetworkStatus].
type NetworkStatus struct {
	// State is "off", "joining", "ready", or "stopped".
	State    string `json:"State"`
	Version  string `json:"Version"`
	Cluster  string `json:"Cluster,omitempty"`
	Peer     string `json:"Peer,omitempty"`
	Nickname string `json:"Nickname,omitempty"`
	// Password says that hosts need one to join.
	Password bool             `json:"Password"`
	Listen   []netip.AddrPort `json:"Listen,omitempty"`
	Tunnel   string           `json:"Tunnel,omitempty"`
	Trusted  []netip.Prefix   `json:"Trusted,omitempty"`
	Range    netip.Prefix     `json:"Range,omitzero"`
	Targets  []NetworkTarget  `json:"Targets,omitempty"`
	// Peers has this host first, then the others by nickname.
	Peers    []NetworkPeer `json:"Peers,omitempty"`
	Networks []NetworkInfo `json:"Networks,omitempty"`
	DNS      NetworkDNS    `json:"DNS"`
	// Repairs is how often something that others changed in the kernel was put back, RefusedRecords how many
	// records of others were not believed, FailedProofs how often somebody had the wrong password.
	Repairs        int64 `json:"Repairs"`
	RefusedRecords int64 `json:"RefusedRecords"`
	FailedProofs   int64 `json:"FailedProofs"`
	// Problems are what is wrong, the worst first.
	Problems []Advice `json:"Problems,omitempty"`
}

// NetworkSummary is the network across hosts as it stands in [Status].
type NetworkSummary struct {
	// State is that of [NetworkStatus].
	State string `json:"State"`
	// Members counts the hosts of the cluster, this one too, Reachable those of them that are, Direct and Relayed
	// by which path data goes to the others.
	Members   int `json:"Members"`
	Reachable int `json:"Reachable"`
	Direct    int `json:"Direct"`
	Relayed   int `json:"Relayed"`
	Networks  int `json:"Networks"`
	// Owned counts this host's addresses in all networks, Given those of them that are given out.
	Owned uint64 `json:"Owned"`
	Given uint64 `json:"Given"`
	Names int    `json:"Names"`
	// Tunnel is how data is encrypted; empty is not at all.
	Tunnel   string `json:"Tunnel,omitempty"`
	Problems int    `json:"Problems"`
}

// Summary counts.
func (s NetworkStatus) Summary() NetworkSummary {
	sum := NetworkSummary{
		State: s.State, Members: len(s.Peers), Networks: len(s.Networks), Names: s.DNS.Entries, Tunnel: s.Tunnel, Problems: len(s.Problems),
	}
	for _, p := range s.Peers {
		if p.State == "self" {
			sum.Owned = p.Addresses
		}
		if p.State != "unreachable" {
			sum.Reachable++
		}
		switch {
		case p.State != "reachable":
		case p.Path == "direct":
			sum.Direct++
		case strings.HasPrefix(p.Path, "via "):
			sum.Relayed++
		}
	}
	for _, n := range s.Networks {
		sum.Given += n.Used
	}
	return sum
}

// NetworkTarget is a host to dial.
type NetworkTarget struct {
	Address string `json:"Address"`
	// State is "connected", "dialling", or "failed"; Error why, and Next when it is tried again.
	State string    `json:"State"`
	Error string    `json:"Error,omitempty"`
	Next  time.Time `json:"Next,omitzero"`
}

// NetworkPeer is a host of the cluster.
type NetworkPeer struct {
	Peer     string `json:"Peer"`
	Nickname string `json:"Nickname"`
	Version  string `json:"Version"`
	// State is "self", "reachable", or "unreachable", Since when.
	State string    `json:"State"`
	Since time.Time `json:"Since,omitzero"`
	// Connections are those that the peer says it has.
	Connections []NetworkConnection `json:"Connections,omitempty"`
	// Path is how data goes to it: "direct", or "via NAME"; Transport "wireguard", "vxlan" or "route".
	Path      string `json:"Path,omitempty"`
	Transport string `json:"Transport,omitempty"`
	// FastPath is that its data passes this host without the host's firewall.
	FastPath  bool           `json:"FastPath,omitempty"`
	Encrypted bool           `json:"Encrypted,omitempty"`
	Endpoint  netip.AddrPort `json:"Endpoint,omitzero"`
	MTU       int            `json:"MTU,omitempty"`
	Latency   time.Duration  `json:"Latency,omitempty"`
	Handshake time.Time      `json:"Handshake,omitzero"`
	// Addresses is how many it owns, in all networks.
	Addresses uint64 `json:"Addresses"`
}

// NetworkConnection is a connection between two hosts, as one of them sees it.
type NetworkConnection struct {
	Peer     string        `json:"Peer"`
	Nickname string        `json:"Nickname"`
	Outbound bool          `json:"Outbound"`
	Address  string        `json:"Address,omitempty"`
	State    string        `json:"State"`
	Latency  time.Duration `json:"Latency,omitempty"`
}

// NetworkInfo is a network across hosts.
type NetworkInfo struct {
	ID        string         `json:"ID"`
	Name      string         `json:"Name"`
	Subnets   []netip.Prefix `json:"Subnets"`
	Encrypted bool           `json:"Encrypted"`
	Multicast bool           `json:"Multicast,omitempty"`
	Internal  bool           `json:"Internal,omitempty"`
	Creator   string         `json:"Creator"`
	// Blocks are those of this host, Used how many of their addresses are given out.
	Blocks []netip.Prefix `json:"Blocks,omitempty"`
	Used   uint64         `json:"Used"`
	// Owned has the share of each peer in the subnets, from 0 to 1, by nickname.
	Owned map[string]float64 `json:"Owned,omitempty"`
	// Error is why it is not on this host as it should be.
	Error string `json:"Error,omitempty"`
}
