package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/trace"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) pluginTrace() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace NAME|SOCKET",
		Short: "Show the calls that engines make to a plugin",
		Long: "Show each call that an engine makes to a plugin when it has ended: when, which, the status and how\n" +
			"long it took, with both bodies. Secrets in them are hidden. The plugin is found by its NAME as an engine\n" +
			"finds it, or by the path of its SOCKET, such as /run/docker/plugins/ID/NAME.sock of a managed plugin.\n" +
			"It knows nothing of it: a socket in between takes the place of its own until Ctrl-C, and also after\n" +
			"kill -9 the plugin's own is put back. An engine keeps connections open, and what it sends by those is not\n" +
			"seen: restart the plugin while it is traced to see all; the trace goes on with the next one.",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: completeSockets,
	}
	format := cmd.Flags().String("format", "text", "how to print: `text|json`")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	mend := cmd.Flags().Bool("mend", false, "only put back what a trace has left that was killed with its guard")
	guard := cmd.Flags().Bool("guard", false, "be the process that puts the socket back")
	_ = cmd.Flags().MarkHidden("guard") // fails only for a flag that is not there
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *format != "text" && *format != "json" {
			return usageError(cmd, errdefs.Errorf(errdefs.ErrInvalid, "format %q: want text or json", *format))
		}
		if *guard {
			return trace.Guard(a.Stdin, args[0])
		}
		socket, err := a.findSocket(args[0])
		if err != nil {
			return err
		}
		if *mend {
			return trace.Mend(socket)
		}
		// The end may wait for a call. Who does not want to wait types Ctrl-C once more.
		defer context.AfterFunc(cmd.Context(), func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })()
		return trace.Run(cmd.Context(), socket, trace.Options{
			Show:  func(c trace.Call) { a.showCall(c, *format) },
			Say:   func(text string) { a.sayf("remora: %s\n", text) },
			Guard: []string{os.Args[0], "plugin", "trace", "--guard"},
		})
	}
	return cmd
}

// findSocket returns the socket of a plugin.
func (a *app) findSocket(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	var dirs client.Dirs
	if c, err := a.load(nil); err == nil { // the plugin need not be of this daemon
		dirs.Sockets = c.PluginDir
	}
	e, err := dirs.Find(name)
	if err != nil {
		return "", err
	}
	path, isUnix := strings.CutPrefix(e.Addr, "unix://")
	if !isUnix {
		return "", errdefs.Errorf(errdefs.ErrUnsupported, "plugin %q: is at %s, and only unix sockets can be traced", name, e.Addr)
	}
	return path, nil
}

func completeSockets(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for e, err := range (client.Dirs{}).List() {
		if err == nil {
			names = append(names, e.Name)
		}
	}
	return names, cobra.ShellCompDirectiveDefault
}

func (a *app) showCall(c trace.Call, format string) {
	if format == "json" {
		enc := json.NewEncoder(a.Stdout)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(c) // who does not read on will end the command
		return
	}
	result := strconv.Itoa(c.Status)
	if c.Status == 0 {
		result = "---"
	}
	line := fmt.Sprintf("%s  %s  %6s  %s", c.Time.Format("15:04:05.000"), result, briefly(c.Duration), c.Method)
	if c.Request != "" {
		line += " " + c.Request
	}
	if c.Error != "" {
		line += " -> " + c.Error
	} else if c.Response != "" {
		line += " -> " + c.Response
	}
	// A plugin is not to write to the terminal by what it answers.
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, line)
	_ = a.printf("%s\n", line) // as above
}

// briefly keeps three digits or so.
func briefly(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
