package sdk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Refresher is implemented by a [Plugin] that can look at the world again, as the Handler
// of package volume does. [Main] calls it on SIGHUP.
type Refresher interface {
	RefreshNow(ctx context.Context) error
}

// closer is implemented by a [Plugin] that has something to put away at the end.
type closer interface {
	Close(ctx context.Context) error
}

// closeTime bounds how long a plugin may take to put its things away.
const closeTime = 5 * time.Second

// Main is the main of a program that is one plugin, called name:
//
//	func main() {
//		root := flag.String("root", "/srv", "`directory` of the volumes")
//		os.Exit(sdk.Main("mobyfs", func(ctx context.Context, log *slog.Logger) (sdk.Plugin, error) {
//			return volume.NewHandler(ctx, driver{*root}, volume.Options{Logger: log})
//		}))
//	}
//
// The program is run as "NAME start", or without that word. It has the flags of package
// flag that are defined before Main is called, and two of its own:
//
//	-socket PATH   the socket; NAME.sock in PluginDir if not given
//	-p PORT        a TCP port on loopback instead, announced as NAME.spec in SpecDir
//
// Where systemd hands over sockets (sd_listen_fds(3)), it listens on those and on nothing
// else. open is called once the flags are parsed. SIGTERM and SIGINT stop the program as
// [Server.Serve] says and close the plugin, SIGHUP refreshes a [Refresher]. The log goes
// to standard error.
//
// Main returns the exit status: 0 when it was stopped, 1 when something failed, 2 for
// wrong arguments. It is for one call in a process.
func Main(name string, open func(ctx context.Context, log *slog.Logger) (Plugin, error)) (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := program{name: name, open: open, flags: flag.NewFlagSet(name, flag.ContinueOnError), out: os.Stderr}
	flag.VisitAll(func(f *flag.Flag) { p.flags.Var(f.Value, f.Name, f.Usage) })
	return p.main(ctx, os.Args[1:])
}

// program is what Main runs.
type program struct {
	name  string
	open  func(context.Context, *slog.Logger) (Plugin, error)
	flags *flag.FlagSet
	out   io.Writer
}

func (p program) main(ctx context.Context, args []string) (status int) {
	p.flags.SetOutput(p.out)
	socket := p.flags.String("socket", filepath.Join(PluginDir, p.name+".sock"), "`path` of the socket")
	port := p.flags.String("p", "", "TCP `port` on loopback to listen on instead of the socket")
	if len(args) > 0 && args[0] == "start" {
		args = args[1:]
	}
	switch err := p.flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // the flag set has said why
	case p.flags.NArg() > 0:
		fmt.Fprintf(p.out, "%s: unknown argument %q; usage: %s start [flags]\n", p.name, p.flags.Arg(0), p.name)
		return 2
	}
	log := slog.New(slog.NewTextHandler(p.out, nil))
	if err := p.serve(ctx, log, *socket, *port); err != nil {
		fmt.Fprintf(p.out, "%s: %v\n", p.name, err)
		return 1
	}
	return 0
}

func (p program) serve(ctx context.Context, log *slog.Logger, socket, port string) (err error) {
	plugin, err := p.open(ctx, log)
	if err != nil {
		return err
	}
	if c, ok := plugin.(closer); ok {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
			defer cancel()
			err = errors.Join(err, c.Close(ctx))
		}()
	}
	listeners, err := p.listen(socket, port)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop() // also where Serve failed
	if r, ok := plugin.(Refresher); ok {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		go refresh(ctx, log, r, hup)
	}
	for _, l := range listeners {
		log.InfoContext(ctx, "listening", "address", l.Addr().String())
	}
	return New(Options{Logger: log}, plugin).Serve(ctx, listeners...)
}

// refresh refreshes r on each signal until ctx ends.
func refresh(ctx context.Context, log *slog.Logger, r Refresher, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		if err := r.RefreshNow(ctx); err != nil {
			log.WarnContext(ctx, "not refreshed", "error", err)
		} else {
			log.InfoContext(ctx, "refreshed")
		}
	}
}

// listen listens on what systemd handed over, or else where the flags say.
func (p program) listen(socket, port string) ([]net.Listener, error) {
	activated, err := SystemdListeners()
	if err != nil {
		return nil, err
	}
	var all []net.Listener
	for _, l := range activated {
		all = append(all, l)
	}
	if len(all) > 0 {
		return all, nil
	}
	var l net.Listener
	if port == "" {
		l, err = ListenUnix(UnixSocket{Path: socket})
	} else {
		l, err = ListenTCP(TCPSocket{Name: p.name, Addr: net.JoinHostPort("127.0.0.1", port)})
	}
	return []net.Listener{l}, err
}
