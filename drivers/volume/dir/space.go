package dir

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/volume"
)

// Space is that of the file system on which the pool lies, as far as it is not kept for root.
func (d *driver) Space(context.Context) (volume.Space, error) {
	p, err := d.pool()
	if err != nil {
		return volume.Space{}, err
	}
	defer p.close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(p.fd, &st); err != nil {
		return volume.Space{}, d.fail("", err)
	}
	return volume.Space{Free: int64(st.Bavail) * st.Bsize, Total: int64(st.Blocks) * st.Bsize}, nil
}
