package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) volumeAttach() *cobra.Command {
	cmd := &cobra.Command{
		Use: "attach NAME", Short: "Bring the disk of a volume to this host without mounting it",
		Long: "Bring the disk of a volume to this host without mounting it, for a look at it or for the next\n" +
			"container. Where nobody uses it, it is detached again after ten minutes.\n\n" +
			"With --force the disk is taken from the host that has it. What that host has not written yet is\n" +
			"lost, and its containers get errors from then on: do it only where that host is gone for good, or\n" +
			"nothing there uses the volume. On a terminal it asks first; elsewhere it wants --yes.",
		Args: names("volume"),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	force := cmd.Flags().Bool("force", false, "take the disk from the host that has it")
	yes := yesFlag(cmd)
	cmd.ValidArgsFunction = a.completeVolumes(pool, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError(cmd, errors.New("want one NAME"))
		}
		if *force && !*yes {
			if err := a.confirm(cmd, "Take "+args[0]+" from the host that has it? What that host has not written yet is lost."); err != nil {
				return err
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.Disks().Attach(cmd.Context(), control.VolumeAttachRequest{Pool: *pool, Name: args[0], Force: *force}); err != nil {
			return err
		}
		return a.printf("%s\n", args[0])
	}
	return cmd
}

func (a *app) volumeImport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import [DISK]", Short: "Make volumes of disks that others have made, such as REX-Ray",
		Long: "Make volumes of disks of the cloud that are not Remora's: by the ID of one, by the name that\n" +
			"people know it by, or of all there are. Without --yes nothing is done, and what would be is said.\n\n" +
			"A disk is tagged, and nothing else is done to it. The first mount looks whether the data lies in a\n" +
			"directory \"data\", as REX-Ray has it; Remora never formats such a disk. The exit status is 3 where\n" +
			"some cannot be taken.",
		Args: usage(cobra.MaximumNArgs(1)),
	}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	name := cmd.Flags().String("name", "", "`name` of the volume, instead of that of the disk")
	yes := cmd.Flags().BoolP("yes", "y", false, "do it")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := control.VolumeImportRequest{Pool: *pool, Name: *name, Apply: *yes}
		if len(args) == 1 {
			if req.Disk = args[0]; req.Disk == "" {
				return usageError(cmd, errors.New("DISK is empty"))
			}
		}
		if *name != "" && req.Disk == "" {
			return usageError(cmd, errors.New("--name wants a DISK"))
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Disks().Import(cmd.Context(), req)
		if err != nil {
			return err
		}
		return a.imported(list.Disks, *f, *yes)
	}
	return cmd
}

func (a *app) imported(all []control.ImportedDisk, f format, done bool) error {
	var problems []string
	rows := make([][]string, 0, len(all))
	for _, d := range all {
		state := "can be imported"
		switch {
		case d.Done:
			state = "imported"
		case d.Problem != "":
			state = d.Problem
			problems = append(problems, d.Disk+": "+d.Problem)
		}
		rows = append(rows, []string{d.Disk, orDash(d.Name), catalog.Bytes(d.Size).String(), orDash(d.Zone), orDash(d.From), orDash(d.Holder), state})
	}
	if f == "json" {
		if err := a.printJSON(all); err != nil {
			return err
		}
	} else if err := a.table([]string{"DISK", "VOLUME", "SIZE", "ZONE", "MADE BY", "HOST", "STATE"}, rows); err != nil {
		return err
	}
	if !done {
		if len(all) > len(problems) {
			a.sayf("remora: nothing was done; with --yes it is\n")
		}
		return nil
	}
	return a.partly(nil, problems)
}

func (a *app) jobsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "jobs", Short: "List work that outlasts the call that wanted it",
		Long: "List work that outlasts the call that wanted it: a disk that is being made, attached, detached,\n" +
			"resized. A job goes on when a call could not wait for it, and after a crash of the daemon; who asks\n" +
			"for the same again waits for it. What has failed in the last day is listed too.",
		Args: usage(cobra.NoArgs),
	}
	pool := a.poolFlag(cmd, "otherwise all")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Disks().Jobs(cmd.Context(), control.JobListRequest{Pool: *pool})
		if err != nil {
			return err
		}
		if *f == "json" {
			return a.printJSON(list.Jobs)
		}
		rows := make([][]string, 0, len(list.Jobs))
		for _, j := range list.Jobs {
			state := orDash(j.State)
			if j.Failed {
				state = "failed: " + state
			}
			rows = append(rows, []string{j.Pool, j.Kind, j.Object, state, ago(j.Since), orDash(j.Error)})
		}
		return a.table([]string{"POOL", "JOB", "OBJECT", "STATE", "SINCE", "ERROR"}, rows)
	}
	return cmd
}
