package btrfs

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	Path  string         `opt:"path" help:"directory of the pool on a btrfs, which must exist"`
	Image string         `opt:"image" help:"file that holds the file system of the pool, made if missing; without it and path it is images/POOL.btrfs below the daemon's state directory"`
	Size  *catalog.Bytes `opt:"size" help:"size of the image, which takes room as it is filled, and is grown when this has grown; without it half of what is free when it is made, 1 GiB at the least"`
	Quota string         `opt:"quota" enum:"auto,true,false" default:"auto" help:"have btrfs count what each volume takes, which limits want and which costs time: when the first volume has a size, at once, or never"`
}

// minSize is the smallest image that mkfs.btrfs makes a file system of, rounded up.
const minSize = 128 << 20

// Check implements [catalog.Checker], and makes paths clean.
func (c *config) Check() error {
	if c.Path != "" && c.Image != "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "path and image: a pool has one of them")
	}
	if c.Path != "" && c.Size != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "size": belongs to an image, not to a path`)
	}
	if c.Size != nil && *c.Size < minSize {
		return errdefs.Errorf(errdefs.ErrInvalid, `key "size": %s is less than the %s that a btrfs needs`, *c.Size, catalog.Bytes(minSize))
	}
	for key, path := range map[string]*string{"path": &c.Path, "image": &c.Image} {
		if err := catalog.CheckPath(key, *path); err != nil {
			return err
		}
		if *path != "" {
			*path = filepath.Clean(*path)
		}
	}
	return nil
}

type options struct {
	Size     *catalog.Bytes `opt:"size" help:"how much the volume may hold, snapshots not counted; without it no limit"`
	Nocow    *bool          `opt:"nocow" help:"overwrite files in place instead of copying on write, for databases; also turns checksums and compression off"`
	Compress string         `opt:"compress" enum:"none,zstd,lzo,zlib" help:"compress what is written to the volume"`
	catalog.Owner
}

// decode reads the options of a volume and checks what their tags cannot say.
func decode(opts map[string]string) (options, error) {
	o, err := catalog.DecodeOptions[options](opts)
	if err != nil {
		return o, err
	}
	if o.Nocow != nil && *o.Nocow && o.Compress != "" && o.Compress != "none" {
		return o, errdefs.Errorf(errdefs.ErrInvalid, `option "compress": not with "nocow", files of which are never compressed`)
	}
	if o.Size != nil && *o.Size == 0 {
		return o, errdefs.Errorf(errdefs.ErrInvalid, `option "size": "0" is no room; leave it out to have no limit`)
	}
	return o, nil
}

// apply sets what was given on the data directory.
func (o options) apply(data *os.File) error {
	if err := o.Apply(data); err != nil {
		return err
	}
	if o.Nocow != nil {
		if err := setNocow(int(data.Fd()), *o.Nocow); err != nil {
			return err
		}
	}
	switch o.Compress {
	case "":
		return nil
	case "none":
		err := unix.Fremovexattr(int(data.Fd()), compressProperty)
		if errors.Is(err, unix.ENODATA) {
			err = nil
		}
		return err
	}
	return unix.Fsetxattr(int(data.Fd()), compressProperty, []byte(o.Compress), 0)
}
