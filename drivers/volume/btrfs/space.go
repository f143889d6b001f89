package btrfs

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/sdk/volume"
)

// Space is that of the btrfs on which the pool lies, be it in an image or not.
func (d *driver) Space(ctx context.Context) (volume.Space, error) {
	p, err := d.pool(ctx)
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
