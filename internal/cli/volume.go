package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/logging"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) volumeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "volume", Short: "Create, list, inspect, mount, resize and remove volumes", RunE: group}
	cmd.AddCommand(a.volumeCreate(), a.volumeList(), a.volumeInspect(), a.volumeRemove(), a.volumeMount(), a.volumeUnmount(), a.volumePath(),
		a.volumeResize(), a.volumeRollback(), a.volumeUsage(), a.volumeProtect(true), a.volumeProtect(false),
		a.volumePrune(), a.volumeAdopt(), a.volumeAttach(), a.volumeMove(), a.volumeImport())
	return cmd
}

// completeVolumes completes names of volumes of the pool that the command would take, as
// many as may be given, each once.
func (a *app) completeVolumes(pool *string, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) < most {
			a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				in, err := control.ResolvePool(*pool, poolNames(s))
				if err != nil {
					return err
				}
				all, err := c.Volumes().List(ctx, control.VolumeListRequest{Pool: in})
				for _, v := range all {
					if !slices.Contains(args, v.Name) {
						names = append(names, v.Name)
					}
				}
				return err
			})
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func poolNames(s control.Status) []string {
	names := make([]string, 0, len(s.Pools))
	for _, p := range s.Pools {
		names = append(names, p.Name)
	}
	return names
}

// askTime bounds what a shell waits for when it completes a word.
const askTime = 2 * time.Second

// ask asks the daemon for a completion. Without an answer there is nothing to complete.
func (a *app) ask(ctx context.Context, f func(context.Context, *control.Client) error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := a.client()
	if err != nil {
		return
	}
	defer c.Close()
	_ = f(ctx, c) // see above
}

// each does f for every name and tells what failed. It fails partly where some worked, and
// otherwise as each of them did, if they failed alike.
func (a *app) each(args []string, f func(name string) error) error {
	var failed []error
	for _, name := range args {
		if err := f(name); err != nil {
			failed = append(failed, err)
		}
	}
	switch {
	case len(failed) == 0:
		return nil
	case len(args) == 1:
		return failed[0]
	}
	all := status(failed[0])
	for _, err := range failed {
		a.tell(err)
		if status(err) != all {
			all = exitFailed
		}
	}
	if len(failed) == len(args) {
		return failure{all}
	}
	return failure{exitPartly}
}

// confirm asks on a terminal, and refuses where there is none.
func (a *app) confirm(cmd *cobra.Command, question string) error {
	if !logging.IsTerminal(a.Stdin) {
		return usageError(cmd, fmt.Errorf("%q, and there is no terminal to ask on: add --yes", question))
	}
	yes, err := a.asked(cmd.Context(), question)
	if err == nil && !yes {
		err = errdefs.Errorf(errdefs.ErrDenied, "nothing was done")
	}
	return err
}

// cliMountID is the mount ID of mounts that are made by hand: there is one for each volume,
// and it does not go away by itself.
const cliMountID = control.ByHand

func (a *app) volumeMount() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mount NAME",
		Short: "Mount a volume by hand, and print where",
		Long: "Mount a volume by hand and print where its data lies. It stays mounted, also across\n" +
			"restarts of the daemon, until \"remora volume unmount\".",
		Args: usage(cobra.ExactArgs(1)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	id := idFlag(cmd)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		p, err := c.Volumes().Mount(cmd.Context(), control.VolumeMountRequest{Pool: *pool, Name: args[0], ID: *id})
		if err != nil {
			return err
		}
		return a.printf("%s\n", p)
	}
	return cmd
}

func (a *app) volumeUnmount() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unmount NAME", Aliases: []string{"umount"}, Short: "Undo \"remora volume mount\"", Args: usage(cobra.ExactArgs(1)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	id := idFlag(cmd)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Volumes().Unmount(cmd.Context(), control.VolumeMountRequest{Pool: *pool, Name: args[0], ID: *id})
	}
	return cmd
}

func (a *app) volumePath() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "path NAME",
		Short: "Print where the data of a volume lies",
		Long:  "Print where the data of a volume lies on this host: nothing, if it must be mounted first.",
		Args:  usage(cobra.ExactArgs(1)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		p, err := c.Volumes().Path(cmd.Context(), control.VolumeRequest{Pool: *pool, Name: args[0]})
		if err != nil || p == "" {
			return err
		}
		return a.printf("%s\n", p)
	}
	return cmd
}
