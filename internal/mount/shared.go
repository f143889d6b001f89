package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
)

// Shared tells whether what is mounted below path is seen by mount namespaces that were
// made from this one (mount_namespaces(7), shared subtrees), and which mountpoint decides
// that. path may not exist yet; then the directory above it counts.
func Shared(path string) (shared bool, mountpoint string, err error) {
	real, err := filepath.EvalSymlinks(path)
	for errors.Is(err, fs.ErrNotExist) && path != "/" {
		path = filepath.Dir(path)
		real, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return false, "", state.Classify(err)
	}
	above, err := mountinfo.GetMounts(mountinfo.ParentsFilter(real))
	if err != nil {
		return false, "", state.Classify(err)
	}
	for _, m := range above {
		if len(m.Mountpoint) >= len(mountpoint) {
			mountpoint, shared = m.Mountpoint, strings.Contains(m.Optional, "shared:")
		}
	}
	return shared, mountpoint, nil
}

// Share makes dir, and makes it a mount of its own that is seen by whoever has it (rshared), unless it is one. What is
// mounted below it later is seen by all that have it.
func Share(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return state.Classify(err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return state.Classify(err)
	}
	at, err := At(dir)
	if err != nil {
		return err
	}
	if !at {
		if err := Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	return Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
}
