// Package all lists the drivers that are built in. It is the one place that imports
// them; a driver that is not in the list is not in the program.
package all

import (
	"github.com/remora-plugins/remora/drivers/network/overlay"
	"github.com/remora-plugins/remora/drivers/volume/btrfs"
	"github.com/remora-plugins/remora/drivers/volume/cinder"
	"github.com/remora-plugins/remora/drivers/volume/csi"
	"github.com/remora-plugins/remora/drivers/volume/dir"
	"github.com/remora-plugins/remora/drivers/volume/dobs"
	"github.com/remora-plugins/remora/drivers/volume/ebs"
	"github.com/remora-plugins/remora/drivers/volume/gcepd"
	"github.com/remora-plugins/remora/drivers/volume/loop"
	"github.com/remora-plugins/remora/drivers/volume/mem"
	"github.com/remora-plugins/remora/drivers/volume/mount"
	"github.com/remora-plugins/remora/drivers/volume/rbd"
	"github.com/remora-plugins/remora/drivers/volume/sshfs"
	"github.com/remora-plugins/remora/internal/catalog"
)

// Volumes returns the drivers of volumes, by name.
func Volumes() []catalog.Volume {
	return []catalog.Volume{
		btrfs.Driver(),
		cinder.Driver(),
		csi.Driver(),
		dir.Driver(),
		dobs.Driver(),
		ebs.Driver(),
		gcepd.Driver(),
		loop.Driver(),
		mem.Driver(),
		mount.Driver(),
		rbd.Driver(),
		sshfs.Driver(),
	}
}

// Network returns the driver of networks across hosts.
func Network() catalog.Network { return overlay.Network() }
