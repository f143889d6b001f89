package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) backupPrune() *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune [VOLUME]", Short: "Remove backups by age, and free room", Args: usage(cobra.MaximumNArgs(1)),
		Long: "Keep of each volume the newest backups, and the newest of each of the last hours, days,\n" +
			"weeks, months and years that have any; remove the others of this host, and free what no\n" +
			"backup needs any more. --dry-run only says what would go. What goes from the repository\n" +
			"stays in it for a day, as others may be using it. Room is freed by one host, that which\n" +
			"made the repository or took it over.",
	}
	repo := repoFlag(cmd)
	pool := a.poolFlag(cmd, "all")
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	req := control.BackupPruneRequest{}
	for _, k := range []struct {
		name string
		at   *int
		what string
	}{
		{"last", &req.Last, "keep the newest `N`"},
		{"hourly", &req.Hourly, "keep one of each of `N` hours"},
		{"daily", &req.Daily, "keep one of each of `N` days"},
		{"weekly", &req.Weekly, "keep one of each of `N` weeks"},
		{"monthly", &req.Monthly, "keep one of each of `N` months"},
		{"yearly", &req.Yearly, "keep one of each of `N` years"},
	} {
		cmd.Flags().IntVar(k.at, "keep-"+k.name, 0, k.what)
	}
	cmd.Flags().BoolVarP(&req.DryRun, "dry-run", "n", false, "only say what would be done")
	cmd.Flags().BoolVar(&req.TakeOver, "take-over", false, "make this host the one that frees room, where the other is gone for good")
	yes := yesFlag(cmd)
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if req.Last+req.Hourly+req.Daily+req.Weekly+req.Monthly+req.Yearly == 0 {
			return usageError(cmd, errors.New("say what to keep, such as --keep-daily 7"))
		}
		req.Repository, req.Pool, req.Name = *repo, *pool, strings.Join(args, "")
		return a.backups(func(b control.Backups) error {
			if !req.DryRun && !*yes {
				if err := a.confirm(cmd, "Destroy the backups that are not to be kept?"); err != nil {
					return err
				}
			}
			p, err := b.Prune(cmd.Context(), req, func(p control.Progress) { a.sayf("repository %q: freeing room\n", p.Object) })
			if err != nil {
				return err
			}
			for _, w := range p.Warnings {
				a.sayf("warning: %s\n", w)
			}
			if *f == "json" {
				return a.printJSON(p)
			}
			rows := [][]string{}
			for _, c := range slices.Backward(p.Choices) {
				what := "keep: " + strings.Join(c.Reasons, ", ")
				if len(c.Reasons) == 0 {
					what = "remove"
				}
				rows = append(rows, []string{short(c.ID), c.Pool, c.Volume, ago(c.Started), amount(c.Size), what})
			}
			return a.table([]string{"ID", "POOL", "VOLUME", "CREATED", "SIZE", "WHAT"}, rows)
		})
	}
	return cmd
}

func (a *app) backupRestore() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore ID|VOLUME", Short: "Restore a backup, or some files of it",
		Long: "Restore a backup to a new volume (--to), or to its own in place of what is there now\n" +
			"(--in-place), which must not be in use. Of a volume it is the newest backup, or with --at the\n" +
			"newest from before that time: a date such as 2026-11-20 or \"2026-11-20 15:04\", or how long\n" +
			"ago, such as 12h or \"3 days ago\". A date alone is the end of that day.\n\n" +
			"In place, the new content is made beside the old and takes its place when it is whole; the\n" +
			"old comes into the trash, from which \"remora undo\" brings it back. That needs room for both.\n" +
			"With --purge, and where the driver has no trash, the backup is read and found good first, and\n" +
			"then what was in the volume is gone. With --path it is only these files and directories, each\n" +
			"at its place and in place of what is there; nothing of that comes into the trash.",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	repo := repoFlag(cmd)
	pool := a.poolFlag(cmd, "that of the backup")
	to := cmd.Flags().String("to", "", "`volume` to make")
	at := cmd.Flags().String("at", "", "the newest backup of the volume from before this `time`")
	purge := cmd.Flags().Bool("purge", false, "in place, keep nothing of what was there")
	inPlace := cmd.Flags().Bool("in-place", false, "replace what is in the volume of the backup")
	paths := cmd.Flags().StringArray("path", nil, "`path` in the volume; may be repeated")
	opts := map[string]string{}
	cmd.Flags().FuncP("opt", "o", "`KEY=VALUE` for the driver of the new volume; may be repeated", func(s string) error { return setPair(opts, s) })
	yes := yesFlag(cmd)
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *to != "" && *inPlace:
			return usageError(cmd, errors.New("--to and --in-place: want one of them"))
		case *to == "" && !*inPlace:
			return usageError(cmd, errors.New("say where to: --to VOLUME or --in-place"))
		case *inPlace && len(opts) > 0:
			return usageError(cmd, errors.New("--opt is for a new volume"))
		case *purge && (!*inPlace || len(*paths) > 0):
			return usageError(cmd, errors.New("--purge is for all of a volume in place"))
		}
		var when time.Time
		if cmd.Flags().Changed("at") {
			var err error
			if when, err = parseWhen(*at, time.Now()); err != nil {
				return usageError(cmd, fmt.Errorf("--at: %w", err))
			}
		}
		return a.backups(func(b control.Backups) error {
			if *inPlace && !*yes {
				if err := a.confirm(cmd, "Replace what is in the volume now?"); err != nil {
					return err
				}
			}
			bar := a.bar()
			r, err := b.Restore(cmd.Context(), control.BackupRestoreRequest{
				Repository: *repo, ID: args[0], At: when, Pool: *pool, To: *to, Options: opts, Paths: *paths, Purge: *purge,
			}, bar.show)
			bar.end()
			if err != nil {
				return err
			}
			for _, w := range r.Warnings {
				a.sayf("warning: %s\n", w)
			}
			if *f == "json" {
				return a.printJSON(r)
			}
			a.sayf("volume %q: backup %s, made %s\n", r.Volume, short(r.Backup.ID), ago(r.Backup.Started))
			if r.Kept != "" {
				a.sayf("what was in it is in the trash: remora undo %s --as NEWNAME\n", r.Kept)
			}
			return a.printf("%s\n", r.Volume)
		})
	}
	return cmd
}
