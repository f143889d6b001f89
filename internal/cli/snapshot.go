package cli

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Short: "Keep volumes as they are at one moment", RunE: group,
		Long: "Keep volumes as they are at one moment, at once and while they are written to. A snapshot\n" +
			"holds what a power cut at that moment would have left. Which drivers can is in their pages;\n" +
			"the others say so.",
	}
	cmd.AddCommand(a.snapshotCreate(), a.snapshotList(), a.snapshotRemove(), a.snapshotDiff())
	return cmd
}

// completeSnapshots completes a volume, and behind it its snapshots, as many as may be given.
func (a *app) completeSnapshots(pool *string, most int) cobra.CompletionFunc {
	volumes := a.completeVolumes(pool, 1)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return volumes(cmd, args, word)
		}
		var names []string
		if len(args) <= most {
			a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				l, err := c.Storage().ListSnapshots(ctx, control.SnapshotListRequest{Pool: *pool, Volume: args[0]})
				for _, s := range l.Snapshots {
					if !slices.Contains(args[1:], s.Name) {
						names = append(names, s.Name)
					}
				}
				return err
			})
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) snapshotCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create {VOLUME | --project PROJECT} [NAME]",
		Short: "Keep a volume as it is now, and print the snapshot's name",
		Long: "Keep a volume as it is now, and print the snapshot's name. Without one it is called after the\n" +
			"time on the daemon's clock, such as 20261128-124501. When a hook of the configuration fails\n" +
			"before it there is none; when one fails after it, the exit status is 3.\n\n" +
			"With --project all volumes of a Compose project are kept, those of its containers too, as an\n" +
			"engine knows them, and each is printed as VOLUME@NAME. First the hooks before all of them are\n" +
			"run; then the snapshots are made at the same time, and how far apart they are is said, and which\n" +
			"of them a storage made of one moment; then the hooks after them. The exit status is 3 where only\n" +
			"some could be made. With --pause the containers that use the volumes are paused between the hooks,\n" +
			"for half a minute at most, so that all snapshots are of one moment.",
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	project := projectFlag(cmd)
	cmd.Args = usage(func(cmd *cobra.Command, args []string) error {
		if project.name != "" {
			return cobra.MaximumNArgs(1)(cmd, args)
		}
		return cobra.RangeArgs(1, 2)(cmd, args)
	})
	labels := labelFlag(cmd)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := project.alone(cmd, "pool"); err != nil {
			return err
		}
		name := ""
		if n := len(args); n == 2 || n == 1 && project.name != "" {
			if name = args[n-1]; name == "" {
				return usageError(cmd, errors.New("NAME is empty"))
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		if project.name != "" {
			return a.snapshotProject(cmd.Context(), c, control.ProjectSnapshotRequest{Project: project.name, Name: name, Labels: labels, Pause: project.pause})
		}
		s, err := c.Storage().CreateSnapshot(cmd.Context(), control.SnapshotCreateRequest{Pool: *pool, Volume: args[0], Name: name, Labels: labels})
		if err != nil {
			return err
		}
		return a.partly(a.printf("%s\n", s.Name), s.Errors)
	}
	return cmd
}

func (a *app) snapshotList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls [VOLUME]", Aliases: []string{"list"}, Short: "List the snapshots of a volume, or of all volumes",
		Long: "List the snapshots of a volume, of all volumes of a pool, or of all there are. Volumes whose\n" +
			"driver does not tell within a few seconds are named, and the exit status is 3.",
		Args: usage(cobra.MaximumNArgs(1)),
	}
	pool := a.poolFlag(cmd, "with VOLUME "+defaultPoolHelp+", otherwise all")
	quiet := quietFlag(cmd, "names")
	f := formatFlag(cmd)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := control.SnapshotListRequest{Pool: *pool}
		if len(args) == 1 {
			if req.Volume = args[0]; req.Volume == "" {
				return usageError(cmd, errors.New("VOLUME is empty"))
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Storage().ListSnapshots(cmd.Context(), req)
		if err != nil {
			return err
		}
		switch {
		case *f == "json":
			err = a.printJSON(list.Snapshots)
		case *quiet:
			for _, s := range list.Snapshots {
				err = errors.Join(err, a.printf("%s\n", s.Name))
			}
		default:
			rows := make([][]string, 0, len(list.Snapshots))
			for _, s := range list.Snapshots {
				rows = append(rows, []string{s.Pool, s.Volume, s.Name, ago(s.CreatedAt), pairs(s.Labels)})
			}
			err = a.table([]string{"POOL", "VOLUME", "SNAPSHOT", "CREATED", "LABELS"}, rows)
		}
		return a.partly(err, list.Errors)
	}
	return cmd
}

// partly tells what is missing in a list, and makes that its status, unless there is a worse
// error.
func (a *app) partly(err error, missing []string) error {
	for _, text := range missing {
		a.sayf("remora: %s\n", text)
	}
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return failure{exitPartly}
	}
	return nil
}

// pairs prints labels.
func pairs(m map[string]string) string {
	if len(m) == 0 {
		return "-"
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return strings.Join(all, ",")
}

func (a *app) snapshotRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm VOLUME SNAPSHOT...", Aliases: []string{"remove"}, SuggestFor: []string{"delete"}, Short: "Destroy snapshots",
		Long: "Destroy snapshots of a volume. The volume and its other snapshots stay as they are. On a\n" +
			"terminal it asks first; elsewhere it wants --yes.",
		Args: usage(cobra.MinimumNArgs(2)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	yes := yesFlag(cmd)
	cmd.ValidArgsFunction = a.completeSnapshots(pool, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			if err := a.confirm(cmd, "Destroy the snapshots "+strings.Join(args[1:], ", ")+" of "+args[0]+"?"); err != nil {
				return err
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return a.each(args[1:], func(name string) error {
			if err := c.Storage().RemoveSnapshot(cmd.Context(), control.SnapshotRequest{Pool: *pool, Volume: args[0], Name: name}); err != nil {
				return err
			}
			return a.printf("%s\n", name)
		})
	}
	return cmd
}

func (a *app) snapshotDiff() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff VOLUME SNAPSHOT [SNAPSHOT|now]",
		Short: "List the files that differ between a snapshot and another, or the volume now",
		Long: "List the files that differ between a snapshot and a later one, or the volume as it is now:\n" +
			"\"+\" was added, \"-\" was removed, \"M\" has changed in kind, size, time, mode, owner or target.\n" +
			"Contents are not read. With --format json there is an object on each line.",
		Args: usage(cobra.RangeArgs(2, 3)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	f := formatFlag(cmd)
	cmd.ValidArgsFunction = a.completeSnapshots(pool, 2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := control.SnapshotDiffRequest{Pool: *pool, Volume: args[0], From: args[1]}
		if len(args) == 3 && args[2] != "now" {
			if req.To = args[2]; req.To == "" {
				return usageError(cmd, errors.New("the second snapshot is empty; name one, or now"))
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		var printErr error
		enc := json.NewEncoder(a.Stdout)
		enc.SetEscapeHTML(false)
		_, err = c.Storage().DiffSnapshot(cmd.Context(), req, func(ch control.Change) {
			switch {
			case printErr != nil:
			case *f == "json":
				printErr = enc.Encode(ch)
			default:
				printErr = a.printf("%s %s\n", signs[ch.Kind], printable(ch.Path))
			}
		})
		return errors.Join(err, printErr)
	}
	return cmd
}

var signs = map[string]string{control.Added: "+", control.Removed: "-", control.Changed: "M"}

// printable quotes a path that is not one line of text.
func printable(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(path)
	}
	return path
}
