package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// csiPool is what "remora csi catalog --format json" prints of a pool.
type csiPool struct {
	Name     string   `json:"Name"`
	Title    string   `json:"Title"`
	Driver   string   `json:"Driver"`
	State    string   `json:"State"`
	How      string   `json:"How,omitempty"`
	Needs    string   `json:"Needs"`
	Sources  []string `json:"Sources"`
	Kubeshim bool     `json:"Kubeshim"`
	Text     string   `json:"Text,omitempty"`
}

func (a *app) csiCatalog() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalog [NAME]",
		Short: "List pools for CSI drivers, or print one for the configuration",
		Long: "List pools for the CSI drivers of vendors. With a name, print that pool, ready to be\n" +
			"put at the end of the configuration, with what it needs in comments.",
		Example: "  remora csi catalog\n  remora csi catalog ebs >>/etc/remora/remora.toml",
		Args:    usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return exampleNames(a.csiExamples()), cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := formatFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		all := a.csiExamples()
		if len(args) == 0 {
			return a.listExamples(all, *f)
		}
		for _, x := range all {
			if x.Name != args[0] {
				continue
			}
			if *f == "json" {
				pool := jsonOf(x)
				pool.Text = x.Text
				return a.printJSON(pool)
			}
			return a.printf("%s", x.Text)
		}
		err := errdefs.Errorf(errdefs.ErrNotFound, "CSI driver %q: not in the catalog (there are: %s)", args[0], strings.Join(exampleNames(all), ", "))
		return errdefs.Hint(err, "any other CSI driver needs a pool of your own: remora driver show csi")
	}
	return cmd
}

func (a *app) listExamples(all []catalog.Example, f format) error {
	infos, rows := []csiPool{}, [][]string{}
	for _, x := range all {
		infos = append(infos, jsonOf(x))
		rows = append(rows, []string{x.Name, x.Title, x.State})
	}
	if f == "json" {
		return a.printJSON(infos)
	}
	return a.table([]string{"NAME", "STORAGE", "STATE"}, rows)
}

func jsonOf(x catalog.Example) csiPool {
	return csiPool{Name: x.Name, Title: x.Title, Driver: x.Driver, State: x.State, How: x.How, Needs: x.Needs, Sources: x.Sources, Kubeshim: x.Kubeshim}
}

// csiExamples are those of the driver csi.
func (a *app) csiExamples() []catalog.Example {
	for _, d := range a.Drivers {
		if d.Name() == "csi" {
			return d.Examples()
		}
	}
	return nil
}

func exampleNames(all []catalog.Example) (names []string) {
	for _, x := range all {
		names = append(names, x.Name)
	}
	return names
}
