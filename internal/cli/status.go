package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
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
		if err := a.table([]string{"POOL", "DRIVER", "VOLUMES", "MOUNTED", "SOCKET", "STATE"}, rows); err != nil {
			return err
		}
		if err := a.aboutPools(s.Pools); err != nil {
			return err
		}
		if s.Network != nil {
			if err := a.printf("\nnetwork: %s\n", networkLine(*s.Network)); err != nil {
				return err
			}
		}
		if err := a.pluginStatus(s); err != nil || len(s.Proofs) == 0 {
			return err
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
		return a.proofs(s.Proofs)
	}
	return cmd
}

// aboutPools shows what serves the storage of pools, where it has a name of its own.
func (a *app) aboutPools(pools []control.Pool) error {
	first := true
	for _, p := range pools {
		if p.About == "" {
			continue
		}
		if err := a.printf("%spool %s: %s\n", yesNo(first, "\n", ""), p.Name, p.About); err != nil {
			return err
		}
		first = false
	}
	return nil
}

// pluginStatus shows the managed plugins, if there are any.
func (a *app) pluginStatus(s control.Status) error {
	if s.PluginsError != "" {
		return a.printf("\nno managed plugins: %s\n", s.PluginsError)
	}
	if len(s.Plugins) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(s.Plugins))
	for _, p := range s.Plugins {
		rows = append(rows, []string{p.Name, strconv.FormatBool(p.Enabled), pluginState(control.Plugin{State: p.State, Error: p.Error})})
	}
	if err := a.printf("\n"); err != nil {
		return err
	}
	return a.table([]string{"PLUGIN", "ENABLED", "STATE"}, rows)
}
