package csi

import (
	"context"
	"errors"
	"log/slog"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/csi/quirk"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// admit takes in a volume that the storage has already.
func (d *driver) admit(ctx context.Context, r *jobs.Run, rec record, facts conn.Facts) error {
	if o, ok := d.store.byID(rec.ID, rec.Lineage); ok {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "the storage's volume %q is volume %q already", rec.ID, shown(o)), "use that one")
	}
	if err := d.validate(ctx, r, rec, facts); err != nil {
		return err
	}
	_, err := d.store.begin(rec)
	return err
}

// validate asks whether a volume can be used as it is to be.
func (d *driver) validate(ctx context.Context, r *jobs.Run, rec record, facts conn.Facts) error {
	if !facts.Plugin.Has(spec.PluginCapability_Service_CONTROLLER_SERVICE) {
		return nil
	}
	var answer *spec.ValidateVolumeCapabilitiesResponse
	err := d.rpc(ctx, r, false, func(ctx context.Context) error {
		secrets, err := d.s.secrets.get()
		if err != nil {
			return err
		}
		answer, err = d.conn.Controller().ValidateVolumeCapabilities(ctx, &spec.ValidateVolumeCapabilitiesRequest{
			VolumeId: rec.ID, VolumeContext: rec.Context, VolumeCapabilities: []*spec.VolumeCapability{rec.Capability.spec()},
			Parameters: rec.Parameters, Secrets: secrets,
		})
		return err
	})
	switch {
	case errors.Is(err, errdefs.ErrUnsupported):
		return nil // it does not say
	case conn.OutcomeOf(err) == conn.Gone:
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %w", "volume_id", errors.New(err.Error()))
	case err != nil:
		return err
	case answer.GetConfirmed() == nil && facts.Quirks.Has(quirk.LooseValidate):
		d.log.WarnContext(ctx, "the CSI driver does not confirm that the volume can be used so", slog.String("volume", rec.Name), slog.String("reason", answer.GetMessage()))
	case answer.GetConfirmed() == nil:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%s does not confirm that volume %q can be used as %s%s", facts.Name, rec.ID, wordOf(rec.Capability.Access), because(answer.GetMessage())),
			"try another access, such as -o access=rw-many")
	}
	return nil
}

func because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + errdefs.OneLine(text)
}
