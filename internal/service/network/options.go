package network

import (
	"maps"
	"slices"
	"strconv"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The options of a network, as "docker network create -o" and "remora network create -o" take them.
const (
	optionEncrypted = "encrypted"
	optionMulticast = "multicast"
	optionMTU       = "mtu"
)

// setOptions puts options into a network.
func setOptions(n *record.Network, options map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		value := options[key]
		wrong := func(want string) error {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %q, want %s", key, value, want)
		}
		switch key {
		case optionEncrypted, optionMulticast:
			is, err := strconv.ParseBool(value)
			if err != nil {
				return wrong("true or false")
			}
			if key == optionEncrypted {
				n.Plain = !is
			} else {
				n.Multicast = is
			}
		case optionMTU:
			mtu, err := strconv.Atoi(value)
			if err != nil || mtu < 1280 || mtu > 65535 {
				return wrong("1280 to 65535 bytes")
			}
			n.MTU = mtu
		default:
			return errdefs.Errorf(errdefs.ErrInvalid, "unknown option %q (there are: %s, %s, %s)", key, optionEncrypted, optionMTU, optionMulticast)
		}
	}
	return nil
}

// optionsOf are the options of which a network is made.
func optionsOf(n record.Network) map[string]string {
	options := map[string]string{}
	if n.Plain {
		options[optionEncrypted] = "false"
	}
	if n.Multicast {
		options[optionMulticast] = "true"
	}
	if n.MTU != 0 {
		options[optionMTU] = strconv.Itoa(n.MTU)
	}
	return options
}
