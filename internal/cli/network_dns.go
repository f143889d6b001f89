package cli

import (
	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) networkDNS() *cobra.Command {
	cmd := &cobra.Command{Use: "dns", Short: "Have all containers of this host find names, with no option", RunE: group}
	cmd.AddCommand(a.networkDNSInstall(false), a.networkDNSInstall(true))
	return cmd
}

// networkDNSInstall is the command that changes the engine's file, or the one that takes that back.
func (a *app) networkDNSInstall(undo bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: "install", Short: "Have the engine tell all containers of this host's DNS server",
		Long: "Have the engine tell all its containers of this host's DNS server, by its configuration file. The change is\n" +
			"shown; on a terminal it asks first, elsewhere it wants --yes. Everything else in the file stays as it is.\n" +
			"The engine has to be restarted for it. \"remora network reset\" takes it back as well.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	if undo {
		cmd.Use, cmd.Short, cmd.Long = "uninstall", "Take back what \"install\" changed", ""
	}
	file := new(string)
	if !undo {
		file = cmd.Flags().String("file", "", "the engine's configuration `file` (default: the one that it reads)")
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.networks(func(c control.Networks) error {
			req := control.NetworkInstallDNSRequest{File: *file, Undo: undo}
			shown, err := c.InstallDNS(cmd.Context(), req)
			if err != nil {
				return err
			}
			if shown.Diff == "" {
				a.sayf("nothing is to be changed\n")
				return nil
			}
			if err := a.printf("%s", shown.Diff); err != nil {
				return err
			}
			if !*yes {
				if err := a.confirm(cmd, "Write this?"); err != nil {
					return err
				}
			}
			req.Apply = true
			done, err := c.InstallDNS(cmd.Context(), req)
			if err == nil && done.Done {
				a.sayf("written; restart the engine\n")
			}
			return err
		})
	}
	return cmd
}
