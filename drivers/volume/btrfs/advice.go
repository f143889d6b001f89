package btrfs

import "github.com/remora-plugins/remora/internal/catalog"

// Advice says how the file system counts, as far as the last look at it found out.
func (d *driver) Advice() catalog.Advice {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.counts
	switch {
	case s == nil:
		return catalog.Advice{}
	case !s.on && d.quota == quotaOff:
		return catalog.Advice{Text: "quota is off, and stays so by quota = false: volumes cannot have a size"}
	case !s.on:
		return catalog.Advice{Text: "quota is off: the first volume with a size turns it on"}
	case s.simple:
		return catalog.Advice{
			Text: "simple quota is on: volumes can have a size, and what was cloned or rolled back counts as nothing",
			Mend: "for sizes that hold for those too: btrfs quota disable " + d.Path + " && btrfs quota enable " + d.Path,
		}
	case !s.known():
		return catalog.Advice{
			Text: "quota is on, and what lies on the file system is still being counted",
			Mend: "btrfs quota rescan --status " + d.Path + " tells how far it is",
		}
	}
	a := catalog.Advice{Text: "quota is on: volumes can have a size"}
	if d.quota == quotaAuto {
		a.Mend = "if no volume has one, writing and snapshots are faster without: btrfs quota disable " + d.Path
	}
	return a
}
