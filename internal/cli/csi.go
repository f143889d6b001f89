package cli

import "github.com/spf13/cobra"

func (a *app) csiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "csi",
		Short: "Look at drivers of the Container Storage Interface",
		Args:  usage(cobra.ArbitraryArgs),
		RunE:  group,
	}
	cmd.AddCommand(a.csiCatalog(), a.csiCheck(), a.csiQuirks())
	return cmd
}
