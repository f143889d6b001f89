package cli

import "github.com/spf13/cobra"

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plugin", Short: "Write plugins, and see what engines ask of them", RunE: group}
	cmd.AddCommand(a.pluginNew(), a.pluginTrace())
	return cmd
}
