package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// driverInfo is what "remora driver ls --format json" prints of a driver; "show" prints
// the keys and options too.
type driverInfo struct {
	Name        string    `json:"Name"`
	Description string    `json:"Description"`
	Keys        []keyInfo `json:"Keys,omitempty"`
	Options     []keyInfo `json:"Options,omitempty"`
}

// keyInfo is a key of a pool, or an option of a volume.
type keyInfo struct {
	Name     string `json:"Name"`
	Type     string `json:"Type"`
	Default  string `json:"Default,omitempty"`
	Required bool   `json:"Required,omitempty"`
	Help     string `json:"Help"`
}

func (a *app) driverCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "driver", Short: "Show the drivers, their keys and options", RunE: group}
	cmd.AddCommand(a.driverList(), a.driverShow())
	return cmd
}

func (a *app) driverList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the drivers that are built in",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		infos, rows := []driverInfo{}, [][]string{}
		for _, d := range a.Drivers {
			infos = append(infos, driverInfo{Name: d.Name(), Description: d.Doc()})
			rows = append(rows, []string{d.Name(), d.Doc()})
		}
		if *f == "json" {
			return a.printJSON(infos)
		}
		return a.table([]string{"DRIVER", "DESCRIPTION"}, rows)
	}
	return cmd
}

func (a *app) driverShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show DRIVER",
		Short: "Show the keys of a driver's pools and the options of its volumes",
		Args:  usage(cobra.ExactArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.driverNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := formatFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		for _, d := range a.Drivers {
			if d.Name() != args[0] {
				continue
			}
			if *f == "json" {
				return a.printJSON(driverInfo{Name: d.Name(), Description: d.Doc(), Keys: keyInfos(d.Keys()), Options: keyInfos(d.Options())})
			}
			return a.showDriver(d)
		}
		return errdefs.Errorf(errdefs.ErrNotFound, "driver %q: not found (there are: %s)", args[0], strings.Join(a.driverNames(), ", "))
	}
	return cmd
}

func (a *app) driverNames() []string {
	var all []string
	for _, d := range a.Drivers {
		all = append(all, d.Name())
	}
	return all
}

func keyInfos(keys []catalog.Key) []keyInfo {
	var infos []keyInfo
	for _, k := range keys {
		infos = append(infos, keyInfo{Name: k.Name, Type: k.Type, Default: k.Default, Required: k.Required, Help: k.Help})
	}
	return infos
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
			switch {
			case k.Required:
				def = "required"
			case def == "":
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
