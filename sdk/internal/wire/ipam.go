package wire

// The methods of an IPAM plugin (moby libnetwork/ipams/remote/remote.go).
const (
	IpamGetCapabilities         = "IpamDriver.GetCapabilities"
	IpamGetDefaultAddressSpaces = "IpamDriver.GetDefaultAddressSpaces"
	IpamRequestPool             = "IpamDriver.RequestPool"
	IpamReleasePool             = "IpamDriver.ReleasePool"
	IpamRequestAddress          = "IpamDriver.RequestAddress"
	IpamReleaseAddress          = "IpamDriver.ReleaseAddress"
)

// The keys of the options of [IpamRequestAddress], and the one of the data of a
// [RequestPoolResponse] that the engine reads (moby libnetwork/ipamapi and netlabel).
const (
	OptionAddressType    = "RequestAddressType"
	OptionEndpointName   = "com.docker.network.endpoint.name"
	AddressTypeGateway   = "com.docker.network.gateway"
	PoolDataGateway      = "com.docker.network.gateway"
	AddressOptionMACAddr = OptionMACAddress
)

// IpamError is how an IPAM plugin says no: where the engine looks for the text depends
// on the status, Error with 200 and Err with any other.
type IpamError struct {
	Error string
	Err   string
}

// IpamCapabilitiesResponse answers [IpamGetCapabilities], which has no body.
type IpamCapabilitiesResponse struct {
	RequiresMACAddress    bool
	RequiresRequestReplay bool
	Error                 string `json:",omitempty"`
}

// AddressSpacesResponse answers [IpamGetDefaultAddressSpaces], which has no body.
type AddressSpacesResponse struct {
	LocalDefaultAddressSpace  string
	GlobalDefaultAddressSpace string
	Error                     string `json:",omitempty"`
}

// RequestPoolRequest is the body of [IpamRequestPool]. Pool and SubPool are CIDR, or
// empty: any.
type RequestPoolRequest struct {
	AddressSpace string
	Pool         string
	SubPool      string
	Options      map[string]string
	V6           bool
}

// RequestPoolResponse answers [IpamRequestPool]. Pool is CIDR.
type RequestPoolResponse struct {
	PoolID string
	Pool   string
	Data   map[string]string
	Error  string `json:",omitempty"`
}

// ReleasePoolRequest is the body of [IpamReleasePool].
type ReleasePoolRequest struct {
	PoolID string
}

// RequestAddressRequest is the body of [IpamRequestAddress]. Address is plain, or
// empty: any. Options is null for an endpoint that needs none.
type RequestAddressRequest struct {
	PoolID  string
	Address string
	Options map[string]string
}

// RequestAddressResponse answers [IpamRequestAddress]. Address has a prefix length.
type RequestAddressResponse struct {
	Address string
	Data    map[string]string
	Error   string `json:",omitempty"`
}

// ReleaseAddressRequest is the body of [IpamReleaseAddress]. Address is plain.
type ReleaseAddressRequest struct {
	PoolID  string
	Address string
}

// IpamEmptyResponse answers [IpamReleasePool] and [IpamReleaseAddress].
type IpamEmptyResponse struct {
	Error string `json:",omitempty"`
}
