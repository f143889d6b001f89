// Package wire is Docker's plugin protocol byte for byte: one exported struct for
// each request and answer, in the field order in which the engine writes them, and
// nothing that acts. It is decoded with encoding/json, as the engine does: names
// match whatever their case, unknown fields are ignored, null is the zero value.
//
// The conversion to and from domain types is in the convert.go of each kind.
// Testdata holds exchanges captured from real engines.
package wire

// MediaType is what an engine accepts and what an answer says it is
// (moby pkg/plugins/transport: VersionMimetype).
const MediaType = "application/vnd.docker.plugins.v1.2+json"

// ClassHeader names the response header in which a Remora plugin tells the class of
// an error (errdefs.Name). Engines ignore it; sdk/client reads it.
const ClassHeader = "Remora-Error-Class"

// The names of the kinds in [ActivateResponse] (moby pkg/plugins, Implements).
const (
	VolumeDriver  = "VolumeDriver"
	NetworkDriver = "NetworkDriver"
	IpamDriver    = "IpamDriver"
	AuthZ         = "authz"
)

// ActivateMethod is the first call an engine makes to a plugin that it discovered.
// It has no body.
const ActivateMethod = "Plugin.Activate"

// ActivateResponse answers [ActivateMethod].
type ActivateResponse struct {
	Implements []string
}

// Error is how a plugin says no: with status 500, or, to dockerd alone, with 200.
type Error struct {
	Err string
}
