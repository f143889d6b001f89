package cli

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/scaffold"
)

func (a *app) pluginNew() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "new " + strings.Join(scaffold.Kinds(), "|") + " NAME",
		Short: "Write the source of a new plugin",
		Long: "Write the source of a plugin that works, into the new directory NAME: a driver with its test by\n" +
			"the conformance suite, a Makefile with a target for the bundle of a managed plugin, a unit for\n" +
			"systemd, and a workflow for CI. It is written in Go with Remora's SDK; what it does is yours to change.",
		Example: "  remora plugin new volume mydisk\n  cd mydisk && go mod tidy && make test",
		Args:    usage(cobra.ExactArgs(2)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return scaffold.Kinds(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	dir := cmd.Flags().String("dir", "", "`directory` to make (NAME)")
	module := cmd.Flags().String("module", "", "Go `module` of the plugin, such as example.com/NAME (NAME)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		p := scaffold.Plugin{Kind: args[0], Name: args[1], Module: *module, SDK: version()}
		to := *dir
		if to == "" {
			to = args[1]
		}
		files, err := scaffold.Write(to, p)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := a.printf("%s\n", filepath.Join(to, f)); err != nil {
				return err
			}
		}
		a.sayf("next: cd %s && go mod tidy && make test\n", to)
		return nil
	}
	return cmd
}
