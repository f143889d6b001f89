package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
)

// abilities says what can be done with a driver, in the order in which people ask.
func abilities(f conn.Facts) []Ability {
	ctl, node := f.Controller.Has, f.Node.Has
	var all []Ability
	add := func(what string, can bool, yes, no string) {
		text := no
		if can {
			text = yes
		}
		all = append(all, Ability{what, can, text})
	}
	add("create", ctl(csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME),
		"volumes are made and deleted", "volumes must be there already: use each by its ID, with -o volume_id=ID")
	add("attach", ctl(csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME),
		"a volume is attached to this host before it is mounted, and the storage knows which host has it",
		"nothing is attached: the storage does not keep two hosts from writing to one volume")
	add("snapshots", ctl(csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT),
		"snapshots, and volumes made from them", "no snapshots")
	add("clones", ctl(csi.ControllerServiceCapability_RPC_CLONE_VOLUME), "a volume is copied by the storage", cloneless(f))
	add("group snapshots", f.Plugin.Has(csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE) &&
		f.Group.Has(csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT),
		"several volumes have their snapshot at one moment", "snapshots of several volumes are made one after the other")
	online, offline := expansion(f)
	add("expand online", online, "a volume grows while it is mounted", "a volume does not grow while it is mounted")
	add("expand offline", offline, "a volume grows while it is not mounted", "a volume does not grow while it is not mounted")
	add("stats", node(csi.NodeServiceCapability_RPC_GET_VOLUME_STATS), stats(f), "how full a volume is is asked of its file system")
	add("topology", f.Plugin.Has(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS), place(f),
		"every host reaches every volume, as far as the driver knows")
	add("mount group", node(csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP),
		"-o gid=GROUP is handed to the driver", "-o gid=GROUP changes the group of the volume's root, if it is empty")
	add("one container", severalWriters(f),
		"-o access=rw-one-container keeps a second container off", "nothing keeps a second container of this host off a volume")
	return all
}

func cloneless(f conn.Facts) string {
	if f.Controller.Has(csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		return "a copy is made by way of a snapshot"
	}
	return "no copies"
}

// expansion says when a volume can grow. Drivers that can are known not to announce when; that is taken for both.
func expansion(f conn.Facts) (online, offline bool) {
	storage := f.Controller.Has(csi.ControllerServiceCapability_RPC_EXPAND_VOLUME)
	here := f.Node.Has(csi.NodeServiceCapability_RPC_EXPAND_VOLUME)
	said := f.Expansion.Has(csi.PluginCapability_VolumeExpansion_OFFLINE) && !f.Expansion.Has(csi.PluginCapability_VolumeExpansion_ONLINE)
	return (storage || here) && !said, storage || here // what grows on a host alone is mounted for it
}

func stats(f conn.Facts) string {
	if f.Quirks.Has(quirk.StatsOfBacking) {
		return "the driver tells how full what lies below the volume is"
	}
	return "the driver tells how full a volume is"
}

func place(f conn.Facts) string {
	if len(f.Topology) == 0 {
		return "the driver has zones, and does not say in which this host is"
	}
	return "volumes are made where this host is: " + segments(f.Topology)
}

func segments(topology map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(topology)) {
		all = append(all, fmt.Sprintf("%s=%s", k, topology[k]))
	}
	return strings.Join(all, ", ")
}

func severalWriters(f conn.Facts) bool {
	return f.Node.Has(csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER) &&
		(len(f.Controller) == 0 || f.Controller.Has(csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER))
}
