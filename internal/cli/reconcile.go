package cli

import (
	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) reconcileCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare volumes and mounts with the world, now",
		Long: "List the volumes of every pool anew, forget mounts from before a restart that no\n" +
			"container holds, and unmount what nobody uses. The daemon does this by itself every\n" +
			"minute; this is for who cannot wait.",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		r, err := c.Reconcile(cmd.Context(), func(p control.Progress) { a.sayf("pool %s (%d of %d)\n", p.Object, p.Done+1, p.Total) })
		if err != nil {
			return err
		}
		if *f == "json" {
			return a.printJSON(r)
		}
		for _, change := range r.Changes {
			if err := a.printf("%s\n", change); err != nil {
				return err
			}
		}
		return a.printf("%d volumes, %d mounted, %d changes\n", r.Volumes, r.Mounts, len(r.Changes))
	}
	return cmd
}
