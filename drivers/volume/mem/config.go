package mem

import (
	"io/fs"

	"github.com/remora-plugins/remora/internal/catalog"
)

type config struct {
	Path string `opt:"path" help:"directory below which volumes are mounted, made if missing; without it mem/POOL below the daemon's run directory"`
}

// Check implements [catalog.Checker].
func (c *config) Check() error { return catalog.CheckPath("path", c.Path) }

type options struct {
	Size   *catalog.Bytes `opt:"size" help:"how much fits in; without it half of the machine's memory"`
	Inodes *int64         `opt:"inodes" help:"how many files fit in; without it one for every two pages of memory"`
	Mode   fs.FileMode    `opt:"mode" default:"0755" help:"mode of the volume's top directory"`
	UID    uint32         `opt:"uid" default:"0" help:"owner of the volume's top directory"`
	GID    uint32         `opt:"gid" default:"0" help:"group of the volume's top directory"`
}

// unixMode returns the mode as the kernel writes it.
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}
