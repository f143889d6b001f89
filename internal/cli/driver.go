package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) driverCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "driver", Short: "Show the drivers, their keys and options", RunE: group}
	ls := &cobra.Command{
		Use:               "ls",
		Short:             "List the drivers that are built in",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			rows := [][]string{}
			for _, d := range a.Drivers {
				rows = append(rows, []string{d.Name(), d.Doc()})
			}
			return a.table([]string{"DRIVER", "DESCRIPTION"}, rows)
		},
	}
	show := &cobra.Command{
		Use:   "show DRIVER",
		Short: "Show the keys of a driver's pools and the options of its volumes",
		Args:  usage(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return a.driverNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			for _, d := range a.Drivers {
				if d.Name() == args[0] {
					return a.showDriver(d)
				}
			}
			return errdefs.Errorf(errdefs.ErrNotFound, "driver %q: not found (there are: %s)", args[0], strings.Join(a.driverNames(), ", "))
		},
	}
	cmd.AddCommand(ls, show)
	return cmd
}

func (a *app) driverNames() []string {
	var all []string
	for _, d := range a.Drivers {
		all = append(all, d.Name())
	}
	return all
}

func (a *app) showDriver(d catalog.Volume) error {
	if err := a.printf("%s: %s\n", d.Name(), d.Doc()); err != nil {
		return err
	}
	for _, part := range []struct {
		head string
		keys []catalog.Key
	}{{"KEY OF A POOL", d.Keys()}, {"OPTION OF A VOLUME", d.Options()}} {
		rows := [][]string{}
		for _, k := range part.keys {
			def := k.Default
			if def == "" {
				def = "-"
			}
			rows = append(rows, []string{k.Name, k.Type, def, k.Help})
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
		if err := a.table([]string{part.head, "TYPE", "DEFAULT", "WHAT IT DOES"}, rows); err != nil {
			return err
		}
	}
	return nil
}
