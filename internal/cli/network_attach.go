package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) networkAttach() *cobra.Command {
	cmd := &cobra.Command{
		Use: "attach CONTAINER [ADDRESS...]", Short: "Put a container of this host onto a network",
		Long: "Put a container of this host onto a network, \"remora\" if none is named, with addresses of your choice or any.\n" +
			"Those that it has are printed; one that does not run has none before it does. It is what \"docker network\n" +
			"connect\" does, and stays so when the container is started again. What is attached already is left as it is.",
		Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	network := cmd.Flags().String("network", "", "`name` of the network (remora)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		addresses, err := parseAddresses(cmd, args[1:])
		if err != nil {
			return err
		}
		return a.networks(func(c control.Networks) error {
			at, err := c.Attach(cmd.Context(), control.NetworkAttachRequest{Container: args[0], Network: *network, Addresses: addresses})
			if err != nil || len(at.Addresses) == 0 {
				return err
			}
			return a.printf("%s\n", strings.Join(texts(at.Addresses), "\n"))
		})
	}
	return cmd
}

func (a *app) networkDetach() *cobra.Command {
	cmd := &cobra.Command{
		Use: "detach CONTAINER", Short: "Take a container of this host off a network", Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	network := cmd.Flags().String("network", "", "`name` of the network (remora)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.networks(func(c control.Networks) error {
			return c.Detach(cmd.Context(), control.NetworkAttachRequest{Container: args[0], Network: *network})
		})
	}
	return cmd
}
