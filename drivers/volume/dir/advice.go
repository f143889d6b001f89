package dir

import (
	"fmt"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/mount"
)

// fileSystem returns the mount on which the pool lies, as the table of mounts has it: nothing is
// asked of storage that may not answer.
func (d *driver) fileSystem() (m mount.Info, ok bool) {
	m, ok = mountOf(d.Path)
	if ok && slices.Contains(localTypes, m.FSType) { // there may be links on the way
		return mountOf(resolve(d.Path))
	}
	return m, ok
}

// localTypes are file systems that answer.
var localTypes = []string{"ext4", "xfs", "btrfs", "overlay", "tmpfs"}

func mountOf(path string) (m mount.Info, ok bool) {
	at, err := mount.Of(path)
	if err != nil {
		return m, false
	}
	all, err := mount.List(at)
	if err != nil {
		return m, false
	}
	for _, x := range slices.Backward(all) { // the last is on top
		if x.Mountpoint == at {
			return x, true
		}
	}
	return m, false
}

// quotaIn tells what the options of a mount say about projects.
func quotaIn(m mount.Info) (counting, enforcing bool) {
	if m.FSType != "ext4" && m.FSType != "xfs" {
		return false, false
	}
	options := strings.Split(m.Options, ",")
	enforcing = slices.Contains(options, "prjquota")
	return enforcing || slices.Contains(options, "pqnoenforce"), enforcing
}

// whole returns where all of a file system is mounted of which m is a part that is bound elsewhere: to unmount that
// would turn nothing on.
func whole(m mount.Info) mount.Info {
	if m.Root == "/" || m.FSType != "ext4" && m.FSType != "xfs" {
		return m
	}
	all, _ := mount.List("/") // where none can be listed there is nothing better to say
	for _, x := range all {
		if x.Root == "/" && x.FSType == m.FSType && x.Source == m.Source {
			return x
		}
	}
	return m
}

// Advice says whether volumes can be limited in this pool, and how they could be.
func (d *driver) Advice() catalog.Advice {
	m, ok := d.fileSystem()
	if !ok {
		return catalog.Advice{}
	}
	if _, enforcing := quotaIn(m); enforcing {
		return catalog.Advice{Text: fmt.Sprintf("project quota is on (%s at %s): volumes can have a size", m.FSType, m.Mountpoint)}
	}
	m = whole(m)
	a := catalog.Advice{Text: fmt.Sprintf("project quota is off (%s at %s): volumes cannot have a size", m.FSType, m.Mountpoint)}
	switch root := m.Mountpoint == "/"; {
	case m.FSType == "ext4" && root:
		a.Mend = fmt.Sprintf("from a rescue system: tune2fs -O project,quota %s; then boot with rootflags=prjquota on the kernel's command line", m.Source)
	case m.FSType == "ext4":
		a.Mend = fmt.Sprintf("umount %s && tune2fs -O project,quota %s && mount -o prjquota %s %s; and the option prjquota in /etc/fstab",
			m.Mountpoint, m.Source, m.Source, m.Mountpoint)
	case m.FSType == "xfs" && root:
		a.Mend = "boot with rootflags=prjquota on the kernel's command line"
	case m.FSType == "xfs":
		a.Mend = fmt.Sprintf("umount %s && mount -o prjquota %s %s; and the option prjquota in /etc/fstab", m.Mountpoint, m.Source, m.Mountpoint)
	default:
		a.Mend = "for limits put the pool on ext4 or xfs with project quota, or use the driver btrfs or loop"
	}
	return a
}
