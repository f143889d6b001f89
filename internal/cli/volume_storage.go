package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) volumeRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm NAME...", Aliases: []string{"remove"}, SuggestFor: []string{"delete"}, Short: "Remove volumes and their data",
		Long: "Remove volumes and their data. Where the driver has a trash they come into it, and \"remora\n" +
			"undo\" brings them back; with --purge, and with any other driver, their data is destroyed.\n" +
			"On a terminal it asks first; elsewhere it wants --yes.",
		Args: names("volume"),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	yes := yesFlag(cmd)
	purge := cmd.Flags().Bool("purge", false, "destroy at once, beside the trash")
	cmd.ValidArgsFunction = a.completeVolumes(pool, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		if !*yes {
			question := "Remove " + strings.Join(args, ", ") + " and all data in it?"
			if *purge {
				question = "Destroy " + strings.Join(args, ", ") + " and all data in it, for good?"
			}
			if err := a.confirm(cmd, question); err != nil {
				return err
			}
		}
		return a.each(args, func(name string) error {
			if err := c.Volumes().Remove(cmd.Context(), control.VolumeRemoveRequest{Pool: *pool, Name: name, Purge: *purge}); err != nil {
				return err
			}
			return a.printf("%s\n", name)
		})
	}
	return cmd
}

func (a *app) volumeResize() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resize NAME SIZE",
		Short: "Change how much a volume may hold, and print it",
		Long: "Change how much a volume may hold, whether it is mounted or not, and print the limit that\n" +
			"holds then: a driver may round it up. SIZE is a number with a unit, such as 512m or 10g, or\n" +
			"with \"+\" how much more it is to be. No driver makes a volume smaller than what is in it, and\n" +
			"many cannot make it smaller at all.",
		Args: usage(cobra.ExactArgs(2)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := control.VolumeResizeRequest{Pool: *pool, Name: args[0]}
		more, grows := strings.CutPrefix(args[1], "+")
		n, err := catalog.ParseBytes(more)
		if err != nil || n == 0 {
			return usageError(cmd, errors.New("SIZE: \""+args[1]+"\" is not a size such as 512m, 10g or +5g"))
		}
		if grows {
			req.By = int64(n)
		} else {
			req.Size = int64(n)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		u, err := c.Storage().Resize(cmd.Context(), req)
		if err != nil {
			return err
		}
		return a.printf("%s\n", size(u.Limit))
	}
	return cmd
}

func (a *app) volumeRollback() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback NAME SNAPSHOT",
		Short: "Make a volume what it was",
		Long: "Make a volume what it was when the snapshot was made. What was written since is lost, unless\n" +
			"a snapshot keeps it: make one first. No container may use the volume. Snapshots stay, younger\n" +
			"ones too. On a terminal it asks first; elsewhere it wants --yes.",
		Args: usage(cobra.ExactArgs(2)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	yes := yesFlag(cmd)
	cmd.ValidArgsFunction = a.completeSnapshots(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			in := ""
			if *pool != "" {
				in = "--pool " + *pool + " "
			}
			a.sayf("What was written to %s since %s will be lost. To keep it, first: remora snapshot create %s%s\n", args[0], args[1], in, args[0])
			if err := a.confirm(cmd, "Roll "+args[0]+" back to "+args[1]+"?"); err != nil {
				return err
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.Storage().Rollback(cmd.Context(), control.VolumeRollbackRequest{Pool: *pool, Name: args[0], Snapshot: args[1]}); err != nil {
			return err
		}
		return a.printf("%s\n", args[0])
	}
	return cmd
}

func (a *app) volumeUsage() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "usage NAME",
		Short: "Say how much room a volume takes, now",
		Long: "Say how much room a volume takes, now. Where the driver does not know, the volume is mounted,\n" +
			"if it is not, and its files are counted.",
		Args: usage(cobra.ExactArgs(1)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	f := formatFlag(cmd)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		counting := a.counting("files")
		u, err := c.Storage().Usage(cmd.Context(), control.VolumeRequest{Pool: *pool, Name: args[0]}, counting.tell)
		counting.end()
		if err != nil {
			return err
		}
		if *f == "json" {
			return a.printJSON(u)
		}
		return a.printf("%s\n", size(u.Used))
	}
	return cmd
}

func (a *app) volumeProtect(on bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "protect NAME...",
		Short: "Keep volumes from being removed by anybody",
		Long: "Keep volumes from being removed by anybody, an engine or a person, until \"remora volume\n" +
			"unprotect\". It is remembered in the daemon's state directory.",
		Args: names("volume"),
	}
	if !on {
		cmd.Use, cmd.Short, cmd.Long = "unprotect NAME...", "Undo \"remora volume protect\"", ""
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return a.each(args, func(name string) error {
			if err := c.Storage().Protect(cmd.Context(), control.VolumeProtectRequest{Pool: *pool, Name: name, Protected: on}); err != nil {
				return err
			}
			return a.printf("%s\n", name)
		})
	}
	return cmd
}
