package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) scheduleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "Look at the schedules by which snapshots and backups are made", RunE: group,
		Long: "Look at the schedules by which snapshots and backups are made. They are the tables\n" +
			"[schedule.NAME] of the configuration.",
	}
	cmd.AddCommand(a.scheduleList())
	return cmd
}

func (a *app) scheduleList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the schedules, with their last run and the next",
		Long: "List the schedules: what each does, for how many volumes, when it was last done for any of\n" +
			"them and when it is due next, and what went wrong with one the last time it was its turn. With\n" +
			"--volumes there is a line for each volume.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	each := cmd.Flags().Bool("volumes", false, "a line for each volume")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		list, err := c.Storage().Schedules(cmd.Context())
		switch {
		case err != nil:
			return err
		case *f == "json":
			return a.printJSON(list.Schedules)
		case *each:
			return a.scheduleRuns(list.Schedules)
		}
		rows := make([][]string, 0, len(list.Schedules))
		for _, s := range list.Schedules {
			wrong := s.Error
			if s.Failed > 1 {
				wrong = fmt.Sprintf("%s (and %d more)", wrong, s.Failed-1)
			}
			rows = append(rows, []string{s.Name, s.Cron, strings.Join(s.Tasks, ", "), strconv.Itoa(s.Volumes), ago(s.Last), due(s.Next, false), orDash(wrong)})
		}
		return a.table([]string{"NAME", "CRON", "TASKS", "VOLUMES", "LAST", "NEXT", "ERROR"}, rows)
	}
	return cmd
}

func (a *app) scheduleRuns(all []control.Schedule) error {
	var rows [][]string
	for _, s := range all {
		for _, r := range s.Runs {
			rows = append(rows, []string{s.Name, r.Pool, r.Volume, r.Task, ago(r.Last), due(r.Next, r.Running), orDash(r.Error)})
		}
	}
	return a.table([]string{"NAME", "POOL", "VOLUME", "TASK", "LAST", "NEXT", "ERROR"}, rows)
}

// due says when something is to be done.
func due(next time.Time, running bool) string {
	switch {
	case running:
		return "now"
	case next.IsZero():
		return "-"
	}
	return next.Local().Format(time.DateTime)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
