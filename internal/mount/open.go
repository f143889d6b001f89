package mount

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Open opens the root of a mount, and makes sure that it is that mount: where it has gone meanwhile, what lies at its
// mountpoint is another file system, of the host as a rule, and the error is ErrUnavailable (statx(2), STATX_MNT_ID).
func (at Info) Open() (*os.File, error) {
	dir, err := os.Open(at.Mountpoint)
	if err != nil {
		return nil, state.Classify(err)
	}
	var st unix.Statx_t
	err = unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
	if err == nil && (st.Mask&unix.STATX_MNT_ID == 0 || st.Mnt_id != uint64(at.ID)) {
		err = errdefs.Errorf(errdefs.ErrUnavailable, "%s: not mounted any more", at.Mountpoint)
	}
	if err != nil {
		_ = dir.Close()
		return nil, state.Classify(err)
	}
	return dir, nil
}
