package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check and show the configuration", RunE: group}
	check := &cobra.Command{
		Use:               "check",
		Short:             "Say whether the daemon would take the configuration",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.load(nil)
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				a.sayf("warning: %s\n", w)
			}
			file := c.File
			if file == "" {
				file = "defaults and environment"
			}
			return a.printf("%s: ok, %d pools\n", file, len(c.Pools))
		},
	}
	show := &cobra.Command{
		Use:               "print",
		Short:             "Show every value that is in force, and where it comes from",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(show)
	show.RunE = func(*cobra.Command, []string) error {
		c, err := a.load(nil)
		if err != nil {
			return err
		}
		if *f == "json" {
			return a.printJSON(c.Values())
		}
		rows := [][]string{}
		for _, v := range c.Values() {
			rows = append(rows, []string{v.Key, v.Value, v.Source})
		}
		return a.table([]string{"KEY", "VALUE", "SOURCE"}, rows)
	}
	cmd.AddCommand(check, show)
	return cmd
}
