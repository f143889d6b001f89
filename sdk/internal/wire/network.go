package wire

import "encoding/json"

// The methods of a network plugin (moby libnetwork/drivers/remote/driver.go).
const (
	NetworkGetCapabilities  = "NetworkDriver.GetCapabilities"
	NetworkGwAllocCheck     = "NetworkDriver.GwAllocCheck"
	NetworkAllocate         = "NetworkDriver.AllocateNetwork"
	NetworkFree             = "NetworkDriver.FreeNetwork"
	NetworkCreate           = "NetworkDriver.CreateNetwork"
	NetworkDelete           = "NetworkDriver.DeleteNetwork"
	NetworkCreateEndpoint   = "NetworkDriver.CreateEndpoint"
	NetworkDeleteEndpoint   = "NetworkDriver.DeleteEndpoint"
	NetworkEndpointOperInfo = "NetworkDriver.EndpointOperInfo"
	NetworkJoin             = "NetworkDriver.Join"
	NetworkLeave            = "NetworkDriver.Leave"
	NetworkProgramExternal  = "NetworkDriver.ProgramExternalConnectivity"
	NetworkRevokeExternal   = "NetworkDriver.RevokeExternalConnectivity"
	NetworkDiscoverNew      = "NetworkDriver.DiscoverNew"
	NetworkDiscoverDelete   = "NetworkDriver.DiscoverDelete"
)

// The keys of [NetworkOptions] that the engine itself writes
// (moby libnetwork/netlabel/labels.go).
const (
	OptionGeneric       = "com.docker.network.generic"
	OptionEnableIPv4    = "com.docker.network.enable_ipv4"
	OptionEnableIPv6    = "com.docker.network.enable_ipv6"
	OptionInternal      = "com.docker.network.internal"
	OptionExposedPorts  = "com.docker.network.endpoint.exposedports"
	OptionPortMap       = "com.docker.network.portmap"
	OptionMACAddress    = "com.docker.network.endpoint.macaddress"
	OptionDNSServers    = "com.docker.network.endpoint.dnsservers"
	OptionInterfaceName = "com.docker.network.endpoint.ifname"
	OptionSysctls       = "com.docker.network.endpoint.sysctls"
	OptionNoProxy6To4   = "com.docker.network.driver.private.no_proxy_6to4"
)

// NetworkOptions are the free options of a request: what each key means, and the type
// of its value, is between the engine and the driver.
type NetworkOptions map[string]json.RawMessage

// NetworkCapabilitiesResponse answers [NetworkGetCapabilities], which has no body. A
// scope is "local" or "global"; an empty ConnectivityScope is the same as Scope.
// GwAllocChecker, since 28, makes the engine call [NetworkGwAllocCheck].
type NetworkCapabilitiesResponse struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool   `json:",omitempty"`
	Err               string `json:",omitempty"`
}

// IPAMData is one address pool of a network (moby libnetwork/driverapi, IPAMData, whose
// keys are written in the order of the alphabet). Gateway and AuxAddresses are left out
// when there are none. All but AddressSpace are addresses with a prefix length.
type IPAMData struct {
	AddressSpace string
	AuxAddresses map[string]string `json:",omitempty"`
	Gateway      string            `json:",omitempty"`
	Pool         string            `json:",omitempty"`
}

// GwAllocCheckRequest is the body of [NetworkGwAllocCheck]. Options are those of the
// [CreateNetworkRequest] that follows.
type GwAllocCheckRequest struct {
	Options NetworkOptions
}

// GwAllocCheckResponse answers [NetworkGwAllocCheck]: no gateway address of this family
// is to be reserved.
type GwAllocCheckResponse struct {
	SkipIPv4 bool
	SkipIPv6 bool
	Err      string `json:",omitempty"`
}

// AllocateNetworkRequest is the body of [NetworkAllocate], which a Swarm manager sends
// for a driver of global scope.
type AllocateNetworkRequest struct {
	NetworkID string
	Options   map[string]string
	IPv4Data  []IPAMData
	IPv6Data  []IPAMData
}

// AllocateNetworkResponse answers [NetworkAllocate]. Options are handed to every node's
// [NetworkCreate].
type AllocateNetworkResponse struct {
	Options map[string]string
	Err     string `json:",omitempty"`
}

// NetworkRequest is the body of [NetworkFree] and [NetworkDelete].
type NetworkRequest struct {
	NetworkID string
}

// CreateNetworkRequest is the body of [NetworkCreate].
type CreateNetworkRequest struct {
	NetworkID string
	Options   NetworkOptions
	IPv4Data  []IPAMData
	IPv6Data  []IPAMData
}

// EndpointInterface is what an endpoint has for addresses, each with its prefix length,
// and empty where it is not set.
type EndpointInterface struct {
	Address     string
	AddressIPv6 string
	MacAddress  string
}

// CreateEndpointRequest is the body of [NetworkCreateEndpoint].
type CreateEndpointRequest struct {
	NetworkID  string
	EndpointID string
	Interface  *EndpointInterface
	Options    NetworkOptions
}

// CreateEndpointResponse answers [NetworkCreateEndpoint]. What the request had set must
// be empty here, even if it is the same.
type CreateEndpointResponse struct {
	Interface *EndpointInterface
	Err       string `json:",omitempty"`
}

// EndpointRequest is the body of [NetworkDeleteEndpoint], [NetworkEndpointOperInfo],
// [NetworkLeave] and [NetworkRevokeExternal].
type EndpointRequest struct {
	NetworkID  string
	EndpointID string
}

// EndpointOperInfoResponse answers [NetworkEndpointOperInfo].
type EndpointOperInfoResponse struct {
	Value map[string]any
	Err   string `json:",omitempty"`
}

// JoinRequest is the body of [NetworkJoin]. SandboxKey is the path of the network
// namespace.
type JoinRequest struct {
	NetworkID  string
	EndpointID string
	SandboxKey string
	Options    NetworkOptions
}

// InterfaceName says which interface the engine moves into the sandbox, and the name
// there, to which it appends a number (moby libnetwork/drivers/remote/api/api.go,
// InterfaceName). DstName is the whole name; dockerd up to 29 decodes it and looks at it
// no further (libnetwork/drivers/remote/driver.go, Join).
type InterfaceName struct {
	SrcName   string
	DstPrefix string
	DstName   string `json:",omitempty"`
}

// The values of [StaticRoute.RouteType] (moby libnetwork/types).
const (
	RouteNextHop   = 0
	RouteConnected = 1
)

// StaticRoute is a route in the sandbox. NextHop is empty for one that is connected.
type StaticRoute struct {
	Destination string
	RouteType   int
	NextHop     string `json:",omitempty"`
}

// JoinResponse answers [NetworkJoin]. Without InterfaceName the sandbox gets no
// interface; without a gateway and DisableGatewayService the engine gives it one more,
// on a bridge of its own.
type JoinResponse struct {
	InterfaceName         *InterfaceName `json:",omitempty"`
	Gateway               string         `json:",omitempty"`
	GatewayIPv6           string         `json:",omitempty"`
	StaticRoutes          []StaticRoute  `json:",omitempty"`
	DisableGatewayService bool           `json:",omitempty"`
	Err                   string         `json:",omitempty"`
}

// ProgramExternalRequest is the body of [NetworkProgramExternal].
type ProgramExternalRequest struct {
	NetworkID  string
	EndpointID string
	Options    NetworkOptions
}

// TransportPort is a value of [OptionExposedPorts]. Proto is the number of the protocol
// in an IP header: 6 TCP, 17 UDP, 132 SCTP.
type TransportPort struct {
	Proto uint8
	Port  uint16
}

// PortBinding is a value of [OptionPortMap].
type PortBinding struct {
	Proto       uint8
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// DiscoveryNode is the only DiscoveryType that the engine sends to a plugin
// (moby libnetwork/discoverapi).
const DiscoveryNode = 1

// NodeData is what is said of a node.
type NodeData struct {
	Address     string
	BindAddress string
	Self        bool
}

// DiscoveryRequest is the body of [NetworkDiscoverNew] and [NetworkDiscoverDelete].
type DiscoveryRequest struct {
	DiscoveryType int
	DiscoveryData NodeData
}
