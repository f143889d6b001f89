package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/internal/wire"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Volume calls the methods of a volume plugin.
type Volume struct{ c *Client }

// Volume returns the calls of a volume plugin. Whether the plugin is one, Activate says.
func (c *Client) Volume() Volume { return Volume{c} }

// podmanCreate is how Podman writes [wire.VolumeCreateRequest].
type podmanCreate struct {
	Name string
	Opts map[string]string `json:",omitempty"`
}

// Create makes a volume; opts are the "-o" pairs and may be nil.
func (v Volume) Create(ctx context.Context, name string, opts map[string]string) error {
	if v.c.opts.Engine == Podman {
		return v.do(ctx, wire.VolumeCreate, podmanCreate{name, opts})
	}
	return v.do(ctx, wire.VolumeCreate, wire.VolumeCreateRequest{Name: name, Opts: opts})
}

// Remove destroys a volume.
func (v Volume) Remove(ctx context.Context, name string) error {
	return v.do(ctx, wire.VolumeRemove, wire.VolumeRequest{Name: name})
}

// Mount mounts a volume for the user that id stands for, and returns where it is. dockerd
// has a new id of 64 hexadecimal digits for each start of a container; [PodmanMountID] is
// Podman's.
func (v Volume) Mount(ctx context.Context, name, id string) (mountpoint string, err error) {
	resp, err := call(ctx, v.c, wire.VolumeMount, wire.VolumeMountRequest{Name: name, ID: id},
		func(r *wire.VolumeMountResponse) string { return r.Err })
	return resp.Mountpoint, err
}

// PodmanMountID is the one mount ID that Podman ever sends: the SHA-256 of "placeholder\n".
const PodmanMountID = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"

// Unmount ends one Mount of the same id.
func (v Volume) Unmount(ctx context.Context, name, id string) error {
	return v.do(ctx, wire.VolumeUnmount, wire.VolumeMountRequest{Name: name, ID: id})
}

// Path returns where a volume is, empty where it is not mounted. No engine of today
// calls it.
func (v Volume) Path(ctx context.Context, name string) (mountpoint string, err error) {
	resp, err := call(ctx, v.c, wire.VolumePath, wire.VolumeRequest{Name: name},
		func(r *wire.VolumeMountResponse) string { return r.Err })
	return resp.Mountpoint, err
}

// Get returns what the plugin knows of a volume. No volume in the answer is ErrNotFound,
// as to the engine.
func (v Volume) Get(ctx context.Context, name string) (volume.Info, error) {
	resp, err := call(ctx, v.c, wire.VolumeGet, wire.VolumeRequest{Name: name},
		func(r *wire.VolumeGetResponse) string { return r.Err })
	if err != nil {
		return volume.Info{}, err
	}
	if resp.Volume == nil {
		return volume.Info{}, errdefs.Errorf(errdefs.ErrNotFound, "plugin %q: volume %q: not found", v.c.name, name)
	}
	return v.info(wire.VolumeGet, *resp.Volume)
}

// List returns every volume of the plugin, in the plugin's order. Status is not set.
func (v Volume) List(ctx context.Context) ([]volume.Info, error) {
	var req any = struct{}{}
	if v.c.opts.Engine == Podman {
		req = nil
	}
	resp, err := call(ctx, v.c, wire.VolumeList, req, func(r *wire.VolumeListResponse) string { return r.Err })
	if err != nil {
		return nil, err
	}
	infos := make([]volume.Info, len(resp.Volumes))
	for i, w := range resp.Volumes {
		if infos[i], err = v.info(wire.VolumeList, w); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// Scope returns "local" or "global". Like an engine it takes every other answer for
// "local", and so the result may be used even beside an error.
func (v Volume) Scope(ctx context.Context) (string, error) {
	resp, err := call(ctx, v.c, wire.VolumeCapabilities, struct{}{},
		func(r *wire.VolumeCapabilitiesResponse) string { return r.Err })
	if err == nil && strings.EqualFold(resp.Capabilities.Scope, "global") {
		return "global", nil
	}
	return "local", err
}

// do calls a method that answers nothing but an error.
func (v Volume) do(ctx context.Context, method string, req any) error {
	if v.c.opts.Engine == Podman {
		_, _, err := v.c.roundTrip(ctx, method, req) // Podman does not read the answer
		return err
	}
	_, err := call(ctx, v.c, method, req, func(r *wire.Error) string { return r.Err })
	return err
}

func (v Volume) info(method string, w wire.VolumeInfo) (volume.Info, error) {
	info := volume.Info{Name: w.Name, Mountpoint: w.Mountpoint, Status: w.Status}
	if w.CreatedAt != "" {
		t, err := time.Parse(time.RFC3339, w.CreatedAt)
		if err != nil {
			return volume.Info{}, fmt.Errorf("plugin %q: %s: volume %q: CreatedAt %q is not a time of RFC 3339, and an engine refuses the whole answer",
				v.c.name, method, w.Name, w.CreatedAt)
		}
		info.CreatedAt = t
	}
	return info, nil
}
