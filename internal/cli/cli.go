// Package cli is the command line: one file for each command. A command reads its
// arguments, asks the daemon over the control socket, and prints; what it knows of
// volumes is what the daemon tells.
//
// Results go to standard output and talk to standard error. The statuses with which the
// program exits are in exit.go, and in the help of each command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os/signal"
	"os/user"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/daemon"
	"github.com/remora-plugins/remora/internal/logging"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Env is what the program has around it.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Environ are "KEY=VALUE" pairs.
	Environ []string
	// Drivers are the drivers that are built in.
	Drivers []catalog.Volume
	// Network is the driver of networks across hosts.
	Network catalog.Network
	// RunDaemon runs the daemon until its context ends.
	RunDaemon func(ctx context.Context, o daemon.Options) error
}

// app is one run of the program.
type app struct {
	Env
	configFile string
}

// Main runs the command that args ask for, without the program's own name, and returns
// the exit status. SIGINT and SIGTERM end ctx for it.
func Main(ctx context.Context, args []string, env Env) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	a := &app{Env: env}
	root := a.root() //nolint:contextcheck // a command gets the context when it runs
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		return a.report(ctx, err)
	}
	return exitOK
}

// Root returns the command with all commands below it, for the reference.
func Root(drivers []catalog.Volume) *cobra.Command {
	return (&app{Env: Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Drivers: drivers}}).root()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "remora",
		Short: "Volumes for Docker and Podman",
		Long: "Remora serves volumes to Docker and Podman, and this is its command line.\n\n" +
			"Start the daemon with \"remora daemon\", look at it with \"remora status\", and let\n" +
			"\"remora doctor\" say what is wrong with the host.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // for group to say which command was meant
		RunE:          group,
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&a.configFile, "config", a.getenv("REMORA_CONFIG"),
		"`file` with the configuration ("+config.DefaultFile+" if it is there)")
	root.AddCommand(
		a.daemonCommand(), a.volumeCommand(), a.snapshotCommand(), a.scheduleCommand(), a.undoCommand(), a.trashCommand(), a.backupCommand(), a.pluginCommand(), a.networkCommand(), a.csiCommand(), a.jobsCommand(), a.statusCommand(), a.doctorCommand(), a.reconcileCommand(),
		a.reloadCommand(), a.configCommand(), a.driverCommand(), a.versionCommand(), a.netavarkCommand(),
	)
	describeExit(root)
	return root
}

func (a *app) getenv(key string) string {
	for _, pair := range a.Environ {
		if k, v, ok := strings.Cut(pair, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// source is where the configuration is read from.
func (a *app) source(flags map[string]string) config.Source {
	drivers := map[string]config.Driver{}
	for _, d := range a.Drivers {
		cd := config.Driver{Check: d.Check, Secret: map[string]bool{}}
		for _, k := range d.Keys() {
			cd.Keys = append(cd.Keys, k.Name)
			cd.Secret[k.Name] = k.Secret
		}
		drivers[d.Name()] = cd
	}
	return config.Source{File: a.configFile, Env: a.Environ, Flags: flags, Drivers: drivers, Group: checkGroup}
}

// checkGroup refuses a group that this host does not have.
func checkGroup(name string) error {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return nil
	}
	if _, err := user.LookupGroup(name); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "%q is no group of this host", name)
	}
	return nil
}

// load reads the configuration as the daemon would.
func (a *app) load(flags map[string]string) (*config.Config, error) {
	c, err := config.Load(a.source(flags))
	if err != nil {
		return nil, configError{err}
	}
	return c, nil
}

// client returns a client of the daemon that runs with the configuration. A wrong key in
// it is no reason not to ask: "remora status" tells that the daemon has refused it.
func (a *app) client() (*control.Client, error) {
	socket, err := config.FindControlSocket(a.source(nil))
	if err != nil && !errors.Is(err, fs.ErrPermission) { // a group may be given the socket and not the file
		return nil, configError{err}
	}
	return control.NewClient(socket), nil
}

// logger returns the daemon's logger.
func (a *app) logger(c *config.Config) *slog.Logger {
	level, err := logging.ParseLevel(c.Log.Level)
	if err != nil {
		level = slog.LevelInfo // the configuration has checked it
	}
	if c.Log.Format == "engine" {
		return logging.NewEngine(a.Stdout, a.Stderr, level)
	}
	return logging.NewFormat(a.Stderr, level, c.Log.Format)
}

// version returns the version of this program: that of the module it was built from, with
// the commit where that is all there is.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// printf prints a result.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.Stdout, format, args...)
	return err
}

// sayf tells a person something that is no result.
func (a *app) sayf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Stderr, format, args...) // where talk cannot be heard there is nobody to tell
}
