package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) scheduleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "Look at the schedules by which snapshots are made", RunE: group,
		Long: "Look at the schedules by which snapshots are made. They are the tables [schedule.NAME] of the\n" +
			"configuration.",
	}
	cmd.AddCommand(a.scheduleList())
	return cmd
}

func (a *app) scheduleList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the schedules, with their last run and the next",
		Long: "List the schedules: for how many volumes each is, when it last made a snapshot of any of them\n" +
			"and when the next is due, and what went wrong with one the last time it was its turn.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Storage().Schedules(cmd.Context())
		if err != nil {
			return err
		}
		if *f == "json" {
			return a.printJSON(list.Schedules)
		}
		rows := make([][]string, 0, len(list.Schedules))
		for _, s := range list.Schedules {
			next, wrong := "-", "-"
			if !s.Next.IsZero() {
				next = s.Next.Local().Format(time.DateTime)
			}
			if s.Error != "" {
				wrong = s.Error
			}
			rows = append(rows, []string{s.Name, s.Cron, strconv.Itoa(s.Volumes), ago(s.Last), next, wrong})
		}
		return a.table([]string{"NAME", "CRON", "VOLUMES", "LAST", "NEXT", "ERROR"}, rows)
	}
	return cmd
}
