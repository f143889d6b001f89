package machine

import (
	"fmt"
	"strings"
)

// Bus is the way a disk hangs on a machine. It decides what the kernel calls the disk and
// what it tells of it.
type Bus int

// The buses of the clouds.
const (
	NVMe   Bus = iota // EC2 since 2017: nvme1n1
	Virtio            // KVM clouds: vdb
	SCSI              // virtio-scsi, as at DigitalOcean, Google and many Cinders: sdb
	Xen               // the first ten years of EC2: xvdf, which tells nothing but its name
)

// Disk is what a cloud plugs into a machine.
type Disk struct {
	File string // holds the bytes; its size is that of the disk
	Bus  Bus

	// Name is what the kernel calls the disk. If empty, the machine takes a free name, and
	// not the first.
	Name string

	// Serial, Vendor and Model are what the disk says of itself. A bus has places for some
	// of them only.
	Serial, Vendor, Model string

	// ID is the text of the disk's own designator, page 0x83 of SCSI.
	ID string

	// Links are the names that udev's rules give it below dev/disk/by-id.
	Links []string
}

// EBS returns a volume of EC2 on a machine with NVMe, such as vol-0123456789abcdef0.
func EBS(file, volumeID string) Disk {
	serial := strings.Replace(volumeID, "-", "", 1)
	model := "Amazon Elastic Block Store"
	link := "nvme-Amazon_Elastic_Block_Store_" + serial
	return Disk{
		File: file, Bus: NVMe, Serial: serial, Vendor: "0x1d0f", Model: model,
		// udev 253 added the name space to its links, and kept the older one.
		Links: []string{link, link + "_1", fmt.Sprintf("nvme-nvme.1d0f-%x-%x-00000001", serial, model)},
	}
}

// XenEBS returns a volume of EC2 on a machine of the older kind. It has no serial, and
// its name follows from the one that was asked for: /dev/sdf shows as xvdf.
func XenEBS(file, device string) Disk {
	name := strings.TrimPrefix(device, "/dev/")
	if rest, ok := strings.CutPrefix(name, "sd"); ok {
		name = "xvd" + rest
	}
	return Disk{File: file, Bus: Xen, Name: name}
}

// DigitalOcean returns a volume of DigitalOcean.
func DigitalOcean(file, name string) Disk {
	return Disk{
		File: file, Bus: SCSI, Serial: name, Vendor: "DO", Model: "Volume", ID: name,
		Links: []string{"scsi-0DO_Volume_" + name},
	}
}

// GCE returns a persistent disk of Google. The name is the one given when it was attached
// (deviceName), which need not be that of the disk.
func GCE(file, name string) Disk {
	return Disk{
		File: file, Bus: SCSI, Serial: name, Vendor: "Google", Model: "PersistentDisk", ID: name,
		Links: []string{"google-" + name, "scsi-0Google_PersistentDisk_" + name},
	}
}

// virtioSerial is how many bytes of a serial virtio-blk carries (VIRTIO_BLK_ID_BYTES).
const virtioSerial = 20

// CinderVirtio returns a volume of Cinder on a virtio-blk bus, which has the first 20
// characters of the volume's id.
func CinderVirtio(file, id string) Disk {
	serial := id[:min(len(id), virtioSerial)]
	return Disk{File: file, Bus: Virtio, Serial: serial, Vendor: "0x1af4", Links: []string{"virtio-" + serial}}
}

// CinderSCSI returns a volume of Cinder on a virtio-scsi bus.
func CinderSCSI(file, id string) Disk {
	return Disk{
		File: file, Bus: SCSI, Serial: id, Vendor: "QEMU", Model: "QEMU HARDDISK", ID: id,
		Links: []string{"scsi-0QEMU_QEMU_HARDDISK_" + id, "scsi-SQEMU_QEMU_HARDDISK_" + id},
	}
}

// spread is from how many free names a machine takes one.
const spread = 6

// name is the n-th name that the kernel has for a disk of the bus. The first is that of
// the disk which the machine started from, and is never given to a volume.
func (b Bus) name(n int) string {
	switch b {
	case NVMe:
		return fmt.Sprintf("nvme%dn1", n)
	case Virtio:
		return "vd" + letters(n)
	case Xen:
		return "xvd" + letters(n)
	default:
		return "sd" + letters(n)
	}
}

// letters counts a, b … z, aa, ab.
func letters(n int) string {
	s := ""
	for n++; n > 0; n = (n - 1) / 26 {
		s = string(rune('a'+(n-1)%26)) + s
	}
	return s
}
