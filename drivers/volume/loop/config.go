package loop

import (
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	Path    string        `opt:"path" help:"directory of the pool, which must exist; without it one is made at volumes/POOL below the daemon's state directory"`
	Size    catalog.Bytes `opt:"size" default:"10g" help:"size of a volume that is made without one"`
	FS      string        `opt:"fs" enum:"ext4,xfs,btrfs" default:"ext4" help:"file system of a volume that is made without one"`
	Sparse  bool          `opt:"sparse" default:"true" help:"whether a volume takes room only as it is written to; false reserves all of it"`
	Written bool          `opt:"written" help:"whether all of a volume is written when it is made, so that no write has new blocks to commit; sparse is false then"`
	Mount   []string      `opt:"mount_options" help:"mount options of every volume, such as noatime; those that its file system does not know are left out"`
}

type options struct {
	Size    *catalog.Bytes `opt:"size" help:"hard limit of the volume, made larger by a resize and never smaller"`
	FS      *string        `opt:"fs" enum:"ext4,xfs,btrfs" help:"file system in the image"`
	Sparse  *bool          `opt:"sparse" help:"false reserves all room when the volume is made"`
	Written *bool          `opt:"written" help:"true writes all of the volume when it is made, and reserves its room"`
	Mount   []string       `opt:"mount_options" help:"mount options, after those of the pool"`
	catalog.Owner
}

// sizeUnit is what sizes are rounded up to: the block of each file system.
const sizeUnit = 4096

// roundUp makes a size one that an image can have.
func roundUp(size int64) int64 { return (size + sizeUnit - 1) / sizeUnit * sizeUnit }

// Check implements [catalog.Checker]: it refuses the keys of a pool in which no volume could be made.
func (c *config) Check() error {
	if err := catalog.CheckPath("path", c.Path); err != nil {
		return err
	}
	for _, option := range c.Mount {
		known := false
		for _, k := range kinds {
			known = known || k.Takes(option)
		}
		if !known {
			return errdefs.Errorf(errdefs.ErrInvalid, `key "mount_options": %q is not allowed for any file system`, option)
		}
	}
	if !c.Sparse || c.Written {
		if err := checkReserved(c.Mount); err != nil {
			return err
		}
	}
	return checkSize(kinds[c.FS], int64(c.Size))
}

// made is what the options of a volume and the keys of its pool come to.
type made struct {
	options
	kind    kind
	size    int64
	sparse  bool
	written bool // all of it; it is not sparse then
}

// decode reads the options of a volume and checks what their tags cannot say.
func (d *driver) decode(opts map[string]string) (made, error) {
	o, err := catalog.DecodeOptions[options](opts)
	if err != nil {
		return made{}, err
	}
	m := made{options: o, kind: kinds[d.config.FS], size: int64(d.config.Size), sparse: d.config.Sparse}
	if o.FS != nil {
		m.kind = kinds[*o.FS]
	}
	if o.Size != nil {
		m.size = int64(*o.Size)
	}
	if o.Sparse != nil {
		m.sparse = *o.Sparse
	}
	m.written = d.config.Written && (o.Sparse == nil || !*o.Sparse)
	if o.Written != nil {
		m.written = *o.Written
	}
	if m.written {
		if o.Sparse != nil && *o.Sparse {
			return made{}, errdefs.Errorf(errdefs.ErrInvalid, `option "sparse": a volume that is written when it is made cannot be sparse`)
		}
		m.sparse = false
	}
	return m, m.check()
}

func (m *made) check() error {
	if err := checkSize(m.kind, m.size); err != nil {
		return err
	}
	m.size = roundUp(m.size)
	for _, option := range m.Mount {
		if !m.kind.Takes(option) {
			return errdefs.Errorf(errdefs.ErrInvalid, `option "mount_options": %q is not allowed for %s`, option, m.kind.Name)
		}
	}
	if !m.sparse {
		return checkReserved(m.Mount)
	}
	return nil
}
