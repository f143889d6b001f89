package conn

import (
	"maps"
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/quirk"
)

// Caps is a set of capabilities, by the numbers of the specification. A number that is not known here, since the
// driver is older or newer, is in it like any other.
type Caps[E enum] map[E]bool

type enum interface {
	~int32
	String() string
}

// Has reports whether all of these are in the set.
func (c Caps[E]) Has(all ...E) bool {
	for _, e := range all {
		if !c[e] {
			return false
		}
	}
	return true
}

// Names returns the capabilities in the words of the specification, in its order. One that it has no word for
// is its number.
func (c Caps[E]) Names() []string {
	var names []string
	for _, e := range slices.Sorted(maps.Keys(c)) {
		name := e.String()
		if _, err := strconv.Atoi(name); err == nil && int32(e) == removed(e) {
			name = "VOLUME_CONDITION"
		}
		names = append(names, name)
	}
	return names
}

// removed is the number that a capability had which version 1.13 took out, and older drivers announce.
func removed(e any) int32 {
	switch e.(type) {
	case csi.ControllerServiceCapability_RPC_Type:
		return 11
	case csi.NodeServiceCapability_RPC_Type:
		return 4
	}
	return -1
}

// The kinds of capability.
type (
	PluginCaps     = Caps[csi.PluginCapability_Service_Type]
	ExpansionCaps  = Caps[csi.PluginCapability_VolumeExpansion_Type]
	ControllerCaps = Caps[csi.ControllerServiceCapability_RPC_Type]
	NodeCaps       = Caps[csi.NodeServiceCapability_RPC_Type]
	GroupCaps      = Caps[csi.GroupControllerServiceCapability_RPC_Type]
)

// Facts is what a driver says of itself.
type Facts struct {
	Name, Version string
	NodeID        string
	MaxVolumes    int64 // on this host; 0 is no limit
	Topology      map[string]string

	Plugin     PluginCaps
	Expansion  ExpansionCaps
	Controller ControllerCaps // empty for a driver that has no controller
	Node       NodeCaps
	Group      GroupCaps

	// Quirks is what is known of it, as the pool changed it.
	Quirks quirk.Set
}

func pluginCaps(resp *csi.GetPluginCapabilitiesResponse) (PluginCaps, ExpansionCaps) {
	services, expansion := PluginCaps{}, ExpansionCaps{}
	for _, c := range resp.GetCapabilities() {
		switch {
		case c.GetService() != nil:
			services[c.GetService().GetType()] = true
		case c.GetVolumeExpansion() != nil:
			expansion[c.GetVolumeExpansion().GetType()] = true
		}
	}
	return services, expansion
}

func controllerCaps(resp *csi.ControllerGetCapabilitiesResponse) ControllerCaps {
	all := ControllerCaps{}
	for _, c := range resp.GetCapabilities() {
		if c.GetRpc() != nil {
			all[c.GetRpc().GetType()] = true
		}
	}
	return all
}

func nodeCaps(resp *csi.NodeGetCapabilitiesResponse) NodeCaps {
	all := NodeCaps{}
	for _, c := range resp.GetCapabilities() {
		if c.GetRpc() != nil {
			all[c.GetRpc().GetType()] = true
		}
	}
	return all
}

func groupCaps(resp *csi.GroupControllerGetCapabilitiesResponse) GroupCaps {
	all := GroupCaps{}
	for _, c := range resp.GetCapabilities() {
		if c.GetRpc() != nil {
			all[c.GetRpc().GetType()] = true
		}
	}
	return all
}
