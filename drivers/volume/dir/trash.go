package dir

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Trash moves the volume into the trash by one rename(2). Data that lies elsewhere stays
// there.
func (d *driver) Trash(_ context.Context, name string) error {
	p, err := d.pool()
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.facts(name); err != nil {
		return err
	}
	if err := p.nothingMounted(name); err != nil {
		return err
	}
	err = pooldir.Trash(p.fd, name)
	if errors.Is(err, unix.ENOENT) {
		return errNoVolume // another host was faster
	}
	return d.failTrash(err)
}

// failTrash gives what has no class yet one, and says where it happened.
func (d *driver) failTrash(err error) error {
	if err == nil || errdefs.Class(err) != nil {
		return err
	}
	return d.fail(pooldir.TrashName, err)
}

// Trashed returns what lies in the trash.
func (d *driver) Trashed(context.Context) ([]volume.Trashed, error) {
	p, err := d.pool()
	if err != nil {
		return nil, err
	}
	defer p.close()
	all, err := pooldir.Trashed(p.fd)
	return all, d.failTrash(err)
}

// Restore moves a volume out of the trash.
func (d *driver) Restore(_ context.Context, id, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	p, err := d.pool()
	if err != nil {
		return err
	}
	defer p.close()
	return d.failTrash(pooldir.Restore(p.fd, id, name))
}

// Purge deletes what is in the trash as Remove deletes a volume.
func (d *driver) Purge(ctx context.Context, id string) error {
	p, err := d.pool()
	if err != nil {
		return err
	}
	defer p.close()
	t, err := pooldir.FindTrashed(p.fd, id)
	if err != nil {
		return d.failTrash(err)
	}
	if err := p.nothingMounted(pooldir.TrashPath(id) + "/" + t.Name); err != nil {
		return err
	}
	if err := d.destroy(ctx, p, pooldir.TrashPath(id)); !errors.Is(err, errNoVolume) {
		return err
	}
	return pooldir.ErrNotInTrash
}
