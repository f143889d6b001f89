package cli

import (
	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) networkPodman() *cobra.Command {
	cmd := &cobra.Command{Use: "podman", Short: "Have Podman connect containers to the networks of the cluster", RunE: group}
	cmd.AddCommand(a.networkPodmanInstall(), a.networkPodmanUninstall())
	return cmd
}

func (a *app) networkPodmanInstall() *cobra.Command {
	cmd := &cobra.Command{
		Use: "install", Short: "Put the plugin where Podman looks for it",
		Long: "Put the plugin where Podman looks for it, and print its path. Then \"podman network create -d remora NAME\" makes\n" +
			"a network of the cluster known to Podman, or a new one of the cluster. It takes Podman 4.5 or later, with\n" +
			"netavark 1.6 or later, run by root. \"remora network reset\" takes it away as well.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	dir := cmd.Flags().String("dir", "", "`directory`, one of netavark_plugin_dirs in containers.conf (/usr/local/libexec/netavark)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.networks(func(c control.Networks) error {
			done, err := c.InstallPodman(cmd.Context(), control.NetworkInstallPodmanRequest{Dir: *dir})
			if err != nil {
				return err
			}
			return a.printf("%s\n", done.File)
		})
	}
	return cmd
}

func (a *app) networkPodmanUninstall() *cobra.Command {
	return &cobra.Command{
		Use: "uninstall", Short: "Take the plugin away", Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.networks(func(c control.Networks) error {
				done, err := c.InstallPodman(cmd.Context(), control.NetworkInstallPodmanRequest{Undo: true})
				if err == nil && done.File == "" {
					a.sayf("nothing is installed\n")
				}
				return err
			})
		},
	}
}
