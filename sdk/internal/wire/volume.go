package wire

// The methods of a volume plugin (moby volume/drivers/proxy.go).
const (
	VolumeCreate       = "VolumeDriver.Create"
	VolumeRemove       = "VolumeDriver.Remove"
	VolumeMount        = "VolumeDriver.Mount"
	VolumeUnmount      = "VolumeDriver.Unmount"
	VolumePath         = "VolumeDriver.Path"
	VolumeGet          = "VolumeDriver.Get"
	VolumeList         = "VolumeDriver.List"
	VolumeCapabilities = "VolumeDriver.Capabilities"
)

// VolumeCreateRequest is the body of [VolumeCreate]. Opts is null without options;
// Podman leaves it out.
type VolumeCreateRequest struct {
	Name string
	Opts map[string]string
}

// VolumeRequest is the body of [VolumeRemove], [VolumePath] and [VolumeGet].
type VolumeRequest struct {
	Name string
}

// VolumeMountRequest is the body of [VolumeMount] and [VolumeUnmount]. ID is 64
// hexadecimal digits, one for each start of a container; Podman has one for all.
type VolumeMountRequest struct {
	Name string
	ID   string
}

// VolumeMountResponse answers [VolumeMount] and [VolumePath].
type VolumeMountResponse struct {
	Mountpoint string
	Err        string
}

// VolumeInfo is a volume in the answers to [VolumeGet] and [VolumeList]. CreatedAt is
// RFC 3339; a value that is not breaks the whole answer. Status is read only from
// [VolumeGet].
type VolumeInfo struct {
	Name       string
	Mountpoint string         `json:",omitempty"`
	CreatedAt  string         `json:",omitempty"`
	Status     map[string]any `json:",omitempty"`
}

// VolumeGetResponse answers [VolumeGet]. A null Volume, like an Err, means to the
// engine that the volume is gone.
type VolumeGetResponse struct {
	Volume *VolumeInfo
	Err    string
}

// VolumeListResponse answers [VolumeList].
type VolumeListResponse struct {
	Volumes []VolumeInfo
	Err     string
}

// Capabilities is what [VolumeCapabilities] tells. Scope is "local" or "global".
type Capabilities struct {
	Scope string
}

// VolumeCapabilitiesResponse answers [VolumeCapabilities].
type VolumeCapabilitiesResponse struct {
	Capabilities Capabilities
	Err          string
}
