package cli

// What several commands take is defined once, here.

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// format is the flag --format.
type format string

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (*format) Type() string { return "table|json" }

// Set implements pflag.Value.
func (f *format) Set(s string) error {
	if s != "table" && s != "json" {
		return errdefs.Errorf(errdefs.ErrInvalid, "want table or json")
	}
	*f = format(s)
	return nil
}

// formatFlag adds --format to cmd.
func formatFlag(cmd *cobra.Command) *format {
	f := format("table")
	cmd.Flags().Var(&f, "format", "how to print: table or json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	return &f
}

// poolFlag adds --pool to cmd.
func (a *app) poolFlag(cmd *cobra.Command, otherwise string) *string {
	pool := cmd.Flags().StringP("pool", "p", "", "`pool` of the volume ("+otherwise+")")
	_ = cmd.RegisterFlagCompletionFunc("pool", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
			s, err := c.Status(ctx)
			names = poolNames(s)
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}) // fails only for a flag that is not there
	return pool
}

const defaultPoolHelp = "remora, or the only one there is"

// repoFlag adds --repo to cmd.
func repoFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("repo", "r", "", "`repository` of the configuration (the only one there is)")
}

// yesFlag adds --yes to cmd.
func yesFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().BoolP("yes", "y", false, "do not ask")
}

// quietFlag adds --quiet to cmd.
func quietFlag(cmd *cobra.Command, what string) *bool {
	return cmd.Flags().BoolP("quiet", "q", false, "print "+what+" alone")
}

// labelFlag adds --label to cmd, for what is to be remembered with something that is made.
func labelFlag(cmd *cobra.Command) map[string]string {
	labels := map[string]string{}
	cmd.Flags().FuncP("label", "l", "`KEY=VALUE` to remember with it; may be repeated", func(s string) error { return setPair(labels, s) })
	return labels
}

// idFlag adds --id to cmd.
func idFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("id", cliMountID, "mount `ID` under which it counts")
}

// project is what --project and the flags beside it say.
type project struct {
	name  string
	pause bool
}

// projectFlag adds --project to cmd, and what goes with it.
func projectFlag(cmd *cobra.Command) *project {
	p := &project{}
	cmd.Flags().StringVar(&p.name, "project", "", "all volumes of the Compose `project`")
	cmd.Flags().BoolVar(&p.pause, "pause", false, "with --project, pause the containers that use them for the time of the snapshots")
	return p
}

// alone refuses flags that say nothing beside --project, or without it, and a project without a name.
func (p *project) alone(cmd *cobra.Command, other string) error {
	switch {
	case !cmd.Flags().Changed("project"):
		if p.pause {
			return usageError(cmd, errors.New("--pause is for --project"))
		}
		return nil
	case p.name == "":
		return usageError(cmd, errors.New("--project is empty"))
	case cmd.Flags().Changed(other):
		return usageError(cmd, errors.New("--project and --"+other+": want one of them; the volumes of a project are where they are"))
	}
	return nil
}
