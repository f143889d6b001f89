package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) pluginSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set PLUGIN [KEY=VALUE...]", Short: "Change settings of a managed plugin, which is disabled",
		Long: "Change settings of a managed plugin, which is disabled: the value of a variable or of the arguments, the\n" +
			"source of a mount, the path of a device, as far as its author has them settable. KEY is its name, or\n" +
			"NAME.FIELD. All are changed or none.\n\n" +
			"A password does not belong there: everybody who may inspect the plugin would see it. With\n" +
			"--secret KEY=FILE the variable has what is in the file, read by the daemon at each start of the plugin.\n" +
			"--secret KEY= takes that back.",
		Args: names("plugin"), ValidArgsFunction: a.completePlugins(1, disabled),
	}
	secrets := secretFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.plugins(func(c control.Plugins) error {
			if err := wholePaths(secrets); err != nil {
				return err
			}
			return c.Set(cmd.Context(), control.PluginSetRequest{Name: args[0], Settings: args[1:], Secrets: secrets})
		})
	}
	return cmd
}

func (a *app) pluginLogs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs PLUGIN", Short: "Show what a managed plugin has printed",
		Long: "Show what a managed plugin has printed lately: its standard output on standard output, its standard\n" +
			"error on standard error. The log of the daemon has all of it, with the plugin's name.",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completePlugins(1, nil),
	}
	follow := cmd.Flags().BoolP("follow", "f", false, "show what it prints from now on too")
	tail := cmd.Flags().StringP("tail", "n", "all", "show the last `LINES` of it")
	stamps := cmd.Flags().BoolP("timestamps", "t", false, "show when each line was printed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		last := -1
		if *tail != "all" {
			n, err := strconv.ParseUint(*tail, 10, 31)
			if err != nil {
				return usageError(cmd, fmt.Errorf("--tail %s: want a number of lines, or all", *tail))
			}
			last = int(n)
		}
		return a.plugins(func(c control.Plugins) error {
			var werr error
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			err := c.Logs(ctx, control.PluginLogsRequest{Name: args[0], Tail: last, Follow: *follow}, func(l control.PluginLine) {
				text := l.Text + "\n"
				if *stamps {
					text = l.Time.UTC().Format(time.RFC3339Nano) + " " + text
				}
				out := a.Stdout
				if l.Stream == "stderr" {
					out = a.Stderr
				}
				if _, err := io.WriteString(out, text); err != nil && werr == nil {
					werr = err
					stop()
				}
			})
			if werr != nil {
				return werr
			}
			return err
		})
	}
	return cmd
}

func (a *app) pluginExec() *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec PLUGIN COMMAND [ARG...]", Short: "Run a command inside a managed plugin",
		Long: "Run a command inside a managed plugin that runs, as root and with the plugin's own rights, and exit with\n" +
			"its status.",
		Args: usage(cobra.MinimumNArgs(2)), ValidArgsFunction: a.completePlugins(1, enabled),
	}
	cmd.Flags().SetInterspersed(false) // what comes behind the plugin is the command's
	input := cmd.Flags().BoolP("interactive", "i", false, "give it standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.plugins(func(c control.Plugins) error {
			var stdin io.Reader = strings.NewReader("")
			if *input {
				stdin = a.Stdin
			}
			exit, err := c.Exec(cmd.Context(), control.PluginExecRequest{Name: args[0], Command: args[1:]}, stdin, func(o control.PluginOutput) {
				_, _ = a.Stdout.Write(o.Stdout) // who does not read it does not want it
				_, _ = a.Stderr.Write(o.Stderr) // likewise
			})
			if err == nil && exit.Status != 0 {
				return failure{exit.Status}
			}
			return err
		})
	}
	return cmd
}

func (a *app) pluginTop() *cobra.Command {
	cmd := &cobra.Command{
		Use: "top PLUGIN", Short: "Show the processes of a managed plugin",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completePlugins(1, enabled),
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.plugins(func(c control.Plugins) error {
			top, err := c.Top(cmd.Context(), control.PluginRequest{Name: args[0]})
			switch {
			case err != nil:
				return err
			case *f == "json":
				return a.printJSON(top)
			}
			return a.table(top.Titles, top.Processes)
		})
	}
	return cmd
}
