package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) backupRepair() *cobra.Command {
	cmd := &cobra.Command{
		Use: "repair [REPOSITORY]", Short: "Mend a repository in which bytes are damaged", Args: usage(cobra.MaximumNArgs(1)),
		Long: "Read all of a repository, and mend what is damaged. What nothing can be read without is there\n" +
			"twice, and written again from its copy. A piece of a file is there once: one that is damaged\n" +
			"is forgotten, so that \"remora backup create VOLUME --reread\" stores it again where the volume\n" +
			"still has it, which mends the old backups too. --dry-run only says what would be done.",
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	req := control.BackupRepairRequest{}
	cmd.Flags().BoolVarP(&req.DryRun, "dry-run", "n", false, "only say what would be done")
	yes := yesFlag(cmd)
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Repository = strings.Join(args, "")
		return a.backups(func(b control.Backups) error {
			if !req.DryRun && !*yes {
				if err := a.confirm(cmd, "Mend what is damaged in the repository?"); err != nil {
					return err
				}
			}
			bar := a.bar()
			r, err := b.Repair(cmd.Context(), req, bar.show)
			bar.end()
			if err != nil {
				return err
			}
			if r.Pieces > 0 {
				a.sayf("warning: repository %q: %d pieces of files cannot be read\n", r.Repository, r.Pieces)
				a.sayf("hint: remora backup verify names the backups; remora backup create VOLUME --reread stores again what the volume has\n")
			}
			if *f == "json" {
				return a.printJSON(r)
			}
			for _, name := range r.Mended {
				a.sayf("%s: from its copy\n", name)
			}
			for _, name := range r.Indexes {
				a.sayf("%s: made anew\n", name)
			}
			return a.printf("%d parts mended, %d indexes made anew, %d pieces forgotten, %d copies made\n", len(r.Mended), len(r.Indexes), r.Pieces, r.Copies)
		})
	}
	return cmd
}
