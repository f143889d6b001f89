package csi

import (
	"context"
	"log/slog"
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/jobs"
)

// maxSuspects is how often a copy is made anew.
const maxSuspects = 3

// suspect gives the volume another name at the storage: what may be there under the one that it has is not trusted.
func (d *driver) suspect(v *vol) error {
	rec, _ := d.store.see(v)
	rec.Suspects = append(slices.Clone(rec.Suspects), suspect{CSIName: rec.CSIName})
	rec.CSIName = nameOf(d.c.Namespace, "volume", rec.Name, nonce())
	rec.Problem = ""
	return d.store.save(v, rec)
}

// clearSuspects deletes what may be there under names that are not used.
func (d *driver) clearSuspects(ctx context.Context, r *jobs.Run, v *vol, facts conn.Facts) error {
	for {
		rec, _ := d.store.see(v)
		if len(rec.Suspects) == 0 {
			return nil
		}
		if err := d.clearSuspect(ctx, r, rec, rec.Suspects[0], facts); err != nil {
			d.log.WarnContext(ctx, "what may be there under a name that is not used cannot be deleted yet; the next start tries again",
				slog.String("volume", rec.Name), slog.String("csi_name", rec.Suspects[0].CSIName), slog.Any("error", err))
			return err
		}
		rec.Suspects = slices.Clone(rec.Suspects[1:])
		if err := d.store.save(v, rec); err != nil {
			return err
		}
	}
}

// clearSuspect learns the ID of what may be there, in the only way that there is, and deletes it.
func (d *driver) clearSuspect(ctx context.Context, r *jobs.Run, rec record, s suspect, facts conn.Facts) error {
	free, err := d.making(ctx, facts)
	if err != nil {
		return err
	}
	defer free()
	var answer *spec.CreateVolumeResponse
	err = d.rpc(ctx, r, false, func(ctx context.Context) error {
		var err error
		answer, err = d.createOnce(ctx, rec, s.CSIName)
		return err
	})
	if err != nil {
		if settled(err) {
			return nil // it is not there, and cannot be made
		}
		return err
	}
	return d.callDelete(ctx, r, answer.GetVolume().GetVolumeId())
}
