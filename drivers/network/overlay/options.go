package overlay

import (
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/network"
)

// The least MTU is what IPv6 needs, the largest what a bridge can have.
const (
	leastMTU = 1280
	mostMTU  = 65535
)

// options are those of "docker network create -o".
type options struct {
	Encrypted *bool `opt:"encrypted" help:"whether what leaves the host is encrypted; without it, it is, if the cluster has a password"`
	Multicast *bool `opt:"multicast" help:"whether multicast reaches containers on other hosts; without it, it does not"`
	Internal  *bool `opt:"internal" help:"whether containers have no way out of the network, as with --internal"`
	MTU       *int  `opt:"mtu" help:"MTU of the containers' interfaces; without it the largest that fits in all paths"`
}

// choices reads what was chosen for n.
func choices(n network.Network) (c catalog.Choices, err error) {
	o, err := catalog.DecodeOptions[options](n.Options)
	if err != nil {
		return c, err
	}
	if m := o.MTU; m != nil && (*m < leastMTU || *m > mostMTU) {
		return c, errdefs.Errorf(errdefs.ErrInvalid, "option \"mtu\": %d is not from %d to %d", *m, leastMTU, mostMTU)
	}
	c = catalog.Choices(o)
	if n.Internal {
		if c.Internal != nil && !*c.Internal {
			return c, errdefs.Errorf(errdefs.ErrInvalid, "option \"internal\": is false, although --internal was given")
		}
		c.Internal = &n.Internal
	}
	return c, nil
}
