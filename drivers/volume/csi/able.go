package csi

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// permitted refuses to grow ext4 where the process that would do so lacks the capability: the storage would have made
// the volume larger by then, and no mount of it would succeed on this host any more.
func (d *driver) permitted(ctx context.Context, facts conn.Facts) error {
	pid, err := conn.ServedBy(ctx, d.run.Endpoint())
	if err != nil {
		return nil //nolint:nilerr // it is asked again by the call itself
	}
	if has, known := conn.Capable(pid, unix.CAP_SYS_RESOURCE); has || !known {
		return nil
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "%s (process %d) lacks the capability CAP_SYS_RESOURCE, and could not grow ext4; nothing was changed", facts.Name, pid),
		"give it that capability, or copy the data to a larger volume")
}
