package csi

import (
	"context"
	"errors"
	"path/filepath"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Usage asks the CSI driver while the volume is mounted here, or its file system. While it is not, its size is all that
// is known.
func (d *driver) Usage(ctx context.Context, name string) (volume.Usage, error) {
	v, err := d.get(name)
	if err != nil {
		return volume.Usage{}, err
	}
	rec, n := d.store.see(v)
	if n.Phase != phasePublished || n.Doing != "" {
		if rec.Capacity == 0 {
			return volume.Usage{}, errdefs.Errorf(errdefs.ErrUnsupported, "how large it is can be told only while it is mounted")
		}
		return volume.Usage{Used: volume.Unknown, Limit: rec.Capacity}, nil
	}
	target := filepath.Join(n.Dir, "t")
	if err := d.looks.alive(ctx, target); err != nil {
		return volume.Usage{}, err
	}
	u, err := d.measure(ctx, rec, target)
	if errors.Is(err, errdefs.ErrUnsupported) {
		u, err = statfs(target)
	}
	if err != nil {
		return volume.Usage{}, err
	}
	facts, known := d.conn.Last()
	if known && facts.Quirks.Has(quirk.StatsOfBacking) || rec.Capacity > 0 && u.Limit > 2*rec.Capacity+slack {
		return volume.Usage{}, errdefs.Errorf(errdefs.ErrUnsupported, "the CSI driver tells what the whole storage has, not the volume: its size is not enforced")
	}
	if u.Limit == 0 {
		u.Limit = rec.Capacity
	}
	return u, nil
}

// slack is by how much a file system may look larger than its volume.
const slack = 64 << 20

func (d *driver) measure(ctx context.Context, rec record, target string) (u volume.Usage, err error) {
	facts, err := d.factsNow(ctx)
	if err != nil {
		return u, err
	}
	if !facts.Node.Has(spec.NodeServiceCapability_RPC_GET_VOLUME_STATS) {
		return u, errdefs.Errorf(errdefs.ErrUnsupported, "%s does not tell", facts.Name)
	}
	staging := ""
	if stages(facts) {
		staging = filepath.Join(filepath.Dir(target), "s")
	}
	answer, err := d.conn.Node().NodeGetVolumeStats(ctx, &spec.NodeGetVolumeStatsRequest{VolumeId: rec.ID, VolumePath: target, StagingTargetPath: staging})
	if err != nil {
		return u, err
	}
	for _, one := range answer.GetUsage() {
		if one.GetUnit() == spec.VolumeUsage_BYTES {
			return volume.Usage{Used: one.GetUsed(), Limit: one.GetTotal()}, nil
		}
	}
	return u, errdefs.Errorf(errdefs.ErrUnsupported, "%s does not tell", facts.Name)
}

func statfs(path string) (volume.Usage, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return volume.Usage{}, state.Classify(err)
	}
	return volume.Usage{Used: int64(fs.Blocks-fs.Bfree) * fs.Bsize, Limit: int64(fs.Blocks) * fs.Bsize}, nil
}
