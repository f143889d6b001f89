package cli

import (
	"strconv"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "status",
		Short:             "Show the daemon and its pools",
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
		s, err := c.Status(cmd.Context())
		if err != nil {
			return err
		}
		if *f == "json" {
			return a.printJSON(s)
		}
		file := s.ConfigFile
		if file == "" {
			file = "none, defaults and environment"
		}
		if err := a.printf("remora %s, process %d, started %s\nconfiguration: %s\n", s.Version, s.PID, ago(s.Started), file); err != nil {
			return err
		}
		if s.ConfigError != "" {
			if err := a.printf("last reload refused: %s\n", s.ConfigError); err != nil {
				return err
			}
		}
		rows := [][]string{}
		for _, p := range s.Pools {
			state := "ok"
			if !p.Reachable {
				state = "unreachable: " + p.Error
			}
			rows = append(rows, []string{p.Name, p.Driver, strconv.Itoa(p.Volumes), strconv.Itoa(p.Mounted), p.Socket, state})
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
		if err := a.table([]string{"POOL", "DRIVER", "VOLUMES", "MOUNTED", "SOCKET", "STATE"}, rows); err != nil || len(s.Proofs) == 0 {
			return err
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
		return a.proofs(s.Proofs)
	}
	return cmd
}
