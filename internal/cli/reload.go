package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) reloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "reload",
		Short:             "Have the daemon read its configuration again",
		Long:              "Have the daemon read its configuration again, as SIGHUP does, and say what changed. One\nthat is wrong is not taken over.",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		r, err := c.Reload(cmd.Context())
		if errors.Is(err, errdefs.ErrInvalid) {
			return configError{err}
		}
		if err != nil {
			return err
		}
		for _, w := range r.Warnings {
			a.sayf("warning: %s\n", w)
		}
		if *f == "json" {
			return a.printJSON(r)
		}
		same := true
		for _, part := range []struct {
			what  string
			names []string
		}{{"added", r.Added}, {"changed", r.Changed}, {"removed", r.Removed}, {"schedules", r.Schedules}, {"repositories", r.Repositories}, {"hooks", r.Hooks}, {"verifications", r.Verifies}, {"needs a restart", r.NeedRestart}} {
			if len(part.names) > 0 {
				same = false
				if err := a.printf("%s: %s\n", part.what, strings.Join(part.names, ", ")); err != nil {
					return err
				}
			}
		}
		if same {
			a.sayf("nothing has changed\n")
		}
		return nil
	}
	return cmd
}
