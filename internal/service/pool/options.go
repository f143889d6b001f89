package pool

import "github.com/remora-plugins/remora/sdk/errdefs"

// CloneOption is the option of a volume that is made of another one.
const CloneOption = "from"

// BackupOption is the option of a volume that is made of a backup: REPOSITORY/ID or
// REPOSITORY/VOLUME, which is the newest.
const BackupOption = "backup"

// ErrTwoSources refuses a volume that is to be made of a backup and of something else.
func ErrTwoSources(name string) error {
	return errdefs.Errorf(errdefs.ErrInvalid, "volume %q: options %q and %q: want one of them", name, BackupOption, CloneOption)
}
