package loop

import (
	"slices"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/filesystem"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type kind = filesystem.Kind

var kinds = filesystem.Kinds

// onDevice is a file system on a device on which there is nothing. The size of a block is one that
// every host can read.
func onDevice(device, label string, journal bool) filesystem.New {
	return filesystem.New{
		Device: device, Label: label, BlockSize: "4096", Journal: journal,
		Advice: "look for room on the file system of the pool, and for its faults in dmesg",
	}
}

// checkReserved refuses what would give room back that was reserved.
func checkReserved(options []string) error {
	if slices.Contains(options, "discard") {
		return errdefs.Errorf(errdefs.ErrInvalid, `mount_options: "discard" gives back the room that sparse=false reserves`)
	}
	return nil
}

func checkSize(k kind, size int64) error {
	if size < k.Min {
		return errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s that %s needs", catalog.Bytes(size), catalog.Bytes(k.Min), k.Name)
	}
	if size > 1<<53 {
		return errdefs.Errorf(errdefs.ErrInvalid, "size %s: no file can be so large", catalog.Bytes(size))
	}
	return nil
}
