package adopt

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// DockerRoot is where Docker's own driver keeps its volumes.
const DockerRoot = "/var/lib/docker/volumes"

// anonymous is the name of a volume to which nobody gave one.
var anonymous = regexp.MustCompile(`^[0-9a-f]{64}$`)

// DockerLocal returns the volumes of Docker's driver "local" below root: those that are named,
// or all that somebody gave a name to.
func DockerLocal(root string, names []string) ([]Volume, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, classify(root, err)
	}
	if len(names) == 0 {
		for _, e := range entries {
			if e.IsDir() && !anonymous.MatchString(e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	var all []Volume
	for i, name := range names {
		if !slices.Contains(names[:i], name) {
			all = append(all, dockerVolume(root, name))
		}
	}
	return all, nil
}

func dockerVolume(root, name string) Volume {
	if err := volume.CheckName(name); err != nil { // it could leave the root
		return Volume{Name: name, Err: err}
	}
	dir := filepath.Join(root, name)
	v := found(name, filepath.Join(dir, "_data"))
	data, err := readFile(filepath.Join(dir, "opts.json"))
	if errors.Is(err, errdefs.ErrNotFound) {
		return v
	}
	if err == nil {
		var o dockerOptions
		if o, err = parseDocker(data); err == nil {
			err = o.refuse()
		} else {
			err = errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", filepath.Join(dir, "opts.json"), err)
		}
	}
	if err != nil {
		v.Err = err
	}
	return v
}

// dockerOptions are the options of a volume, as Docker keeps them. MountOpts may have a
// password in it and must not be shown.
type dockerOptions struct {
	MountType, MountOpts, MountDevice string
	Quota                             struct{ Size uint64 }
}

func parseDocker(data []byte) (o dockerOptions, err error) {
	err = json.Unmarshal(data, &o)
	return o, err
}

// refuse says why a volume with these options is not one that can be taken over: what is in
// its directory is not its data, or not all there is to it.
func (o dockerOptions) refuse() error {
	fail := func(hint, format string, args ...any) error {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, format, args...), hint)
	}
	isBind := slices.Contains(strings.Split(o.MountOpts, ","), "bind") || slices.Contains(strings.Split(o.MountOpts, ","), "rbind")
	switch {
	case isBind:
		return fail("remora volume create -o mountpoint=DIRECTORY NAME does the same",
			"it is a bind mount of the directory %q", o.MountDevice)
	case o.MountType == "tmpfs":
		return fail("create a new volume", "it is a tmpfs, whose content is in memory")
	case o.MountType != "" || o.MountDevice != "" || o.MountOpts != "":
		return fail("mount the file system on the host and make a volume with -o mountpoint=DIRECTORY",
			"its data lies elsewhere: it is a mount of type %q", o.MountType)
	case o.Quota.Size != 0:
		return fail("make a volume with -o size= in a pool whose driver has limits, and copy the data into it",
			"it has a limit of %d bytes, which would be lost", o.Quota.Size)
	}
	return nil
}
