package cli

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) volumeCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a volume, or adopt the one that has this name",
		Long: "Make a volume, or adopt the one that has this name already, with its data as it is. The\n" +
			"options are those of the pool's driver: \"remora driver show\" lists them.\n\n" +
			"With --from the volume begins with the data of another one of the pool, or of a snapshot\n" +
			"of it, and has nothing to do with that afterwards. Then a volume that has the name already\n" +
			"is an error. An absolute path is handed to the driver as its option \"from\".\n\n" +
			"With --schedule, or the option \"schedule\", snapshots and backups are made by schedules of the\n" +
			"configuration, beside those that are for it by its name. It can be given again for a volume that\n" +
			"is there.",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	opts := map[string]string{}
	cmd.Flags().FuncP("opt", "o", "`KEY=VALUE` for the driver; may be repeated", func(s string) error { return setPair(opts, s) })
	from := cmd.Flags().String("from", "", "make it a clone of `VOLUME[@SNAPSHOT]`")
	schedules := cmd.Flags().StringSlice("schedule", nil, "`schedule` of the configuration that the volume is to have; may be repeated, and empty takes them away")
	snapshot := cmd.Flags().String("from-snapshot", "", "the `SNAPSHOT` of the volume of --from")
	_ = cmd.RegisterFlagCompletionFunc("from", a.completeVolumes(pool, 100)) // fails only for a flag that is not there
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("schedule") {
			opts["schedule"] = strings.Join(*schedules, ",")
		}
		req, err := cloneRequest(*from, *snapshot)
		if err != nil {
			return usageError(cmd, err)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		var v control.Volume
		if req.From != "" {
			req.Pool, req.Name, req.Options = *pool, args[0], opts
			v, err = c.Storage().Clone(cmd.Context(), req)
		} else {
			if *from != "" {
				opts["from"] = *from
			}
			v, err = c.Volumes().Create(cmd.Context(), control.VolumeCreateRequest{Pool: *pool, Name: args[0], Options: opts})
		}
		if err != nil {
			return err
		}
		return a.printf("%s\n", v.Name)
	}
	return cmd
}

// cloneRequest reads --from and --from-snapshot. From is empty where no volume is to be cloned.
func cloneRequest(from, snapshot string) (control.VolumeCloneRequest, error) {
	var req control.VolumeCloneRequest
	if from == "" || filepath.IsAbs(from) {
		if snapshot != "" {
			return req, errors.New("--from-snapshot wants the volume that it is of: add --from VOLUME")
		}
		return req, nil
	}
	of, name, ok := strings.Cut(from, "@")
	if of == "" || ok && name == "" {
		return req, errors.New("--from: want VOLUME or VOLUME@SNAPSHOT")
	}
	if ok && snapshot != "" {
		return req, errors.New("a snapshot is named twice, by --from and by --from-snapshot")
	}
	if !ok {
		name = snapshot
	}
	req.From, req.Snapshot = of, name
	return req, nil
}
