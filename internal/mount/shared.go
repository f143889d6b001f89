package mount

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"

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
