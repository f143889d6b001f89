package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "backup", Short: "Back volumes up, and restore them", RunE: group}
	cmd.AddCommand(a.backupInit(), a.backupCreate(), a.backupList(), a.backupInspect(), a.backupVerify(), a.backupRemove(),
		a.backupPrune(), a.backupRestore(), a.backupRepair())
	return cmd
}

// backups has do ask the daemon about backups.
func (a *app) backups(do func(control.Backups) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c.Backups())
}

func (a *app) backupInit() *cobra.Command {
	cmd := &cobra.Command{
		Use: "init [REPOSITORY]", Short: "Make a repository where the configuration says", Args: usage(cobra.MaximumNArgs(1)),
		Long: "Make a repository where the configuration says, encrypted with its password. Without the\n" +
			"password nobody can read a backup: keep a copy of it elsewhere.",
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.backups(func(b control.Backups) error {
			r, err := b.Init(cmd.Context(), control.BackupRepository{Repository: strings.Join(args, "")})
			if err != nil {
				return err
			}
			return a.printf("%s\n", r.Repository)
		})
	}
	return cmd
}

func (a *app) backupCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create {VOLUME... | --project PROJECT}", Short: "Back volumes up",
		Long: "Back volumes up, and print the ID of each backup. A volume whose driver has snapshots is\n" +
			"read from one that is made for it, while containers write to it. Any other is read as it\n" +
			"is; if a container writes to it meanwhile, the backup is not of one moment, and that is said.\n" +
			"When a hook of the configuration fails before it there is none; when one fails after it, the\n" +
			"exit status is 3.\n\n" +
			"With --project all volumes of a Compose project are backed up, those of its containers too, as\n" +
			"an engine knows them: first snapshots of all are made at the same time, and then several are\n" +
			"backed up at once, as backup.parallel says. With --pause the containers that use the volumes are\n" +
			"paused while these snapshots are made, for half a minute at most, so that all are of one moment.",
	}
	repo, pool := repoFlag(cmd), a.poolFlag(cmd, defaultPoolHelp)
	project := projectFlag(cmd)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if project.name != "" {
			return usage(cobra.NoArgs)(cmd, args)
		}
		return names("volume")(cmd, args)
	}
	cmd.ValidArgsFunction = a.completeVolumes(pool, 100)
	kind := cmd.Flags().String("kind", "", "what is in it: `files|database|block`; stays so for the next backups (files)")
	reread := cmd.Flags().Bool("reread", false, "read files too whose size and times have not changed")
	labels := labelFlag(cmd)
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := project.alone(cmd, "pool"); err != nil {
			return err
		}
		if project.name != "" {
			return a.backupProject(cmd.Context(), control.ProjectBackupRequest{
				Project: project.name, Repository: *repo, Kind: *kind, Reread: *reread, Labels: labels, Pause: project.pause,
			}, *f)
		}
		return a.backups(func(b control.Backups) error {
			made := []control.Backup{}
			var beside []string
			err := a.each(args, func(name string) error {
				bar := a.bar()
				one, err := b.Create(cmd.Context(), control.BackupCreateRequest{
					Repository: *repo, Pool: *pool, Name: name, Kind: *kind, Reread: *reread, Labels: labels,
				}, bar.show)
				bar.end()
				if err != nil {
					return err
				}
				a.warnOf(one)
				made, beside = append(made, one), append(beside, one.Errors...)
				if *f == "json" {
					return nil
				}
				return a.printBackup(one)
			})
			if *f == "json" && len(made) > 0 {
				err = errors.Join(a.printJSON(made), err)
			}
			return a.partly(err, beside)
		})
	}
	return cmd
}

// warnOf tells what is to be said of a backup that was made.
func (a *app) warnOf(one control.Backup) {
	for _, w := range one.Warnings {
		a.sayf("warning: %s\n", w)
	}
	if one.Skipped > 0 {
		a.sayf("warning: volume %q: %d devices, sockets and pipes are not in the backup\n", one.Volume, one.Skipped)
	}
}

func (a *app) printBackup(one control.Backup) error {
	a.sayf("volume %q: %s in %d files, %s stored\n", one.Volume, amount(one.Size), one.Files, amount(one.Stored))
	return a.printf("%s\n", one.ID)
}

func (a *app) backupList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls [VOLUME]", Aliases: []string{"list"}, Short: "List backups, the oldest first", Args: usage(cobra.MaximumNArgs(1)),
	}
	repo := repoFlag(cmd)
	pool := a.poolFlag(cmd, "all")
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	quiet := quietFlag(cmd, "IDs")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.backups(func(b control.Backups) error {
			all, err := b.List(cmd.Context(), control.BackupListRequest{Repository: *repo, Pool: *pool, Name: strings.Join(args, "")})
			if err != nil {
				return err
			}
			if *f == "json" && !*quiet {
				return a.printJSON(all)
			}
			rows := [][]string{}
			hosts := slices.ContainsFunc(all, func(one control.Backup) bool { return one.Host != all[0].Host })
			for _, one := range all {
				if *quiet {
					if err := a.printf("%s\n", one.ID); err != nil {
						return err
					}
				}
				pool := one.Pool
				if hosts {
					pool = one.Host + ":" + pool
				}
				rows = append(rows, []string{short(one.ID), pool, one.Volume, ago(one.Started), amount(one.Size), moment(one)})
			}
			if *quiet {
				return nil
			}
			return a.table([]string{"ID", "POOL", "VOLUME", "CREATED", "SIZE", "OF ONE MOMENT"}, rows)
		})
	}
	return cmd
}

func (a *app) backupInspect() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect ID...", Short: "Show everything about backups, as JSON", Args: names("backup"), ValidArgsFunction: cobra.NoFileCompletions,
	}
	repo := repoFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.backups(func(b control.Backups) error {
			all := []control.Backup{}
			err := a.each(args, func(id string) error {
				one, err := b.Inspect(cmd.Context(), control.BackupRequest{Repository: *repo, ID: id})
				if err == nil {
					all = append(all, one)
				}
				return err
			})
			if len(all) == 0 {
				return err
			}
			return errors.Join(a.printJSON(all), err)
		})
	}
	return cmd
}

func (a *app) backupVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify [ID | --restore [VOLUME]]", Short: "Read all of a backup, or of every one, and say what is damaged",
		Long: "Read all of a backup, or of every one, from the repository, and say what is damaged.\n\n" +
			"With --restore the newest backup of a volume, or of each of this host, is restored to a volume\n" +
			"that is thrown away again, or to where the table [verify.NAME] of the configuration says. What\n" +
			"was written is read from the disk and compared with the backup, and the command of that table\n" +
			"is run on it in a container without a network. \"remora status\" shows when that was last done.",
		Args: usage(cobra.MaximumNArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	repo := repoFlag(cmd)
	pool := a.poolFlag(cmd, "all")
	restore := cmd.Flags().Bool("restore", false, "restore to where it is thrown away again, and compare")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *pool != "" && !*restore {
			return usageError(cmd, errors.New("--pool is for --restore"))
		}
		return a.backups(func(b control.Backups) error {
			if *restore {
				return a.prove(cmd.Context(), b, control.BackupListRequest{Repository: *repo, Pool: *pool, Name: strings.Join(args, "")}, *f)
			}
			bar := a.bar()
			v, err := b.Verify(cmd.Context(), control.BackupRequest{Repository: *repo, ID: strings.Join(args, "")}, bar.show)
			bar.end()
			if err != nil && len(args) > 0 && (errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid)) {
				err = errdefs.Hint(err, "\"remora backup ls\" shows the IDs; that of a volume is proved by: remora backup verify --restore "+args[0])
			}
			if err != nil {
				return err
			}
			if *f == "json" {
				err = a.printJSON(v)
			} else {
				for _, d := range v.Damaged {
					a.sayf("remora: backup %s of volume %q: %d damaged: %s\n", short(d.ID), d.Volume, d.Files, d.Error)
				}
				err = a.printf("%d backups, %d damaged, %s read\n", v.Backups, len(v.Damaged), amount(v.Bytes))
			}
			if err == nil && len(v.Damaged) > 0 {
				err = failure{exitFailed}
			}
			return err
		})
	}
	return cmd
}

func (a *app) backupRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm ID...", Aliases: []string{"remove"}, SuggestFor: []string{"delete"}, Short: "Destroy backups", Args: names("backup"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Destroy backups. On a terminal it asks first; elsewhere it wants --yes. The room that they\n" +
			"took is freed by \"remora backup prune\", a day later at the earliest.",
	}
	repo := repoFlag(cmd)
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.backups(func(b control.Backups) error {
			if !*yes {
				if err := a.confirm(cmd, "Destroy the backups "+strings.Join(args, ", ")+"?"); err != nil {
					return err
				}
			}
			return a.each(args, func(id string) error {
				if err := b.Remove(cmd.Context(), control.BackupRequest{Repository: *repo, ID: id}); err != nil {
					return err
				}
				return a.printf("%s\n", id)
			})
		})
	}
	return cmd
}

// short returns as much of an ID as a person needs.
func short(id string) string { return fmt.Sprintf("%.12s", id) }

func moment(b control.Backup) string {
	if b.PointInTime {
		return "yes"
	}
	return "no"
}

// amount says how many bytes n is, for people.
func amount(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[i])
}
