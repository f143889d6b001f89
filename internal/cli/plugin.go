package cli

import "github.com/spf13/cobra"

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plugin", Short: "Check plugins, by anyone and in any language", RunE: group}
	cmd.AddCommand(a.pluginCheck())
	return cmd
}
