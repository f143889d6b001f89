package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what "remora version --format json" prints.
type versionInfo struct {
	Version  string `json:"Version"`
	Revision string `json:"Revision,omitempty"`
	Go       string `json:"Go"`
	Platform string `json:"Platform"`
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Show the version of this program",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		v := versionInfo{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					v.Revision = s.Value
				}
			}
		}
		if *f == "json" {
			return a.printJSON(v)
		}
		return a.printf("remora %s (%s, %s)\n", v.Version, v.Go, v.Platform)
	}
	return cmd
}
