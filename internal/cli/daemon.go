package cli

import (
	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/daemon"
)

func (a *app) daemonCommand() *cobra.Command {
	flags := map[string]string{}
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Serve volumes until stopped",
		Long: "Serve the configured pools to engines, and the control socket to this command line,\n" +
			"until SIGTERM or SIGINT. SIGHUP reads the configuration again; one that is wrong is\n" +
			"not taken over. The log goes to standard error.",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.RunDaemon(cmd.Context(), daemon.Options{
				Load:    func() (*config.Config, error) { return a.load(flags) },
				Drivers: a.Drivers,
				Network: a.Network,
				Version: version(),
				Logger:  a.logger,
			})
		},
	}
	cmd.Flags().Func("set", "`KEY=VALUE` over file and environment, such as log.level=debug; may be repeated", func(s string) error {
		return setPair(flags, s)
	})
	return cmd
}
