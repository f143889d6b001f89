// Command plugin is a volume plugin on a TCP address or a unix socket of the test's
// choice: for the tests of discovery, what an engine sees of each way to announce it, and
// for the tests that kill, a plugin by somebody else whose driver mounts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// directories is the smallest driver: a directory for each volume.
type directories string

func (d directories) Create(_ context.Context, name string, _ map[string]string) error {
	return os.MkdirAll(filepath.Join(string(d), name), 0o755) //nolint:gosec // for containers
}

func (d directories) Remove(_ context.Context, name string) error {
	return os.RemoveAll(filepath.Join(string(d), name))
}

func (d directories) Mount(_ context.Context, name, _ string) (string, error) {
	p := filepath.Join(string(d), name)
	if _, err := os.Stat(p); err != nil {
		return "", errdefs.As(errdefs.ErrNotFound, err)
	}
	return p, nil
}

func (directories) Unmount(context.Context, string, string) error { return nil }

func (d directories) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		entries, err := os.ReadDir(string(d))
		if err != nil {
			yield(volume.Info{}, err)
		}
		for _, e := range entries {
			if !yield(volume.Info{Name: e.Name(), Mountpoint: filepath.Join(string(d), e.Name())}, nil) {
				return
			}
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		os.Exit(1)
	}
}

func run() error {
	name := flag.String("name", "", "name of the plugin")
	unix := flag.String("unix", "", "path of a unix socket, announced by a .spec file")
	tcp := flag.String("tcp", "", "TCP address, announced by a .spec or .json file")
	addr := flag.String("announce", "", "address to announce instead of the real one")
	server := flag.String("tls", "", "ca,cert,key of the server")
	caller := flag.String("client-tls", "", "ca,cert,key for the engine")
	root := flag.String("root", "", "directory of the volumes")
	mounts := flag.String("mounts", "", "directory in which volumes are mounted and counted; they are not mounted without")
	slow := flag.Duration("slow", 0, "the longest that mounting may take before and after the mount itself")
	status := flag.String("status", "", "path of a unix socket that tells of the volumes as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := os.MkdirAll(*root, 0o755); err != nil { //nolint:gosec // for containers
		return err
	}
	var d volume.Driver = directories(*root)
	var o volume.Options
	if *mounts != "" {
		d = bound{directories(*root), *slow}
		o = volume.Options{
			Logger:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
			MountRoot: filepath.Join(*mounts, "mounts"), Ledger: filepath.Join(*mounts, "ledger"),
			MountGrace: 2 * time.Second, Refresh: time.Second,
		}
	}
	h, err := volume.NewHandler(ctx, d, o)
	if err != nil {
		return err
	}
	if err := nothingLeft(ctx, h, o.MountRoot); err != nil {
		return err
	}
	if *status != "" {
		if err := tell(ctx, *status, h); err != nil {
			return err
		}
	}
	if *unix != "" {
		l, err := sdk.ListenUnix(sdk.UnixSocket{Path: *unix})
		if err != nil {
			return err
		}
		remove, err := sdk.Announce(sdk.Announcement{Name: *name, Addr: "unix://" + *unix})
		if err != nil {
			return err
		}
		return errors.Join(sdk.Serve(ctx, l, h), remove())
	}
	t := sdk.TCPSocket{Name: *name, Addr: *tcp, Announce: sdk.Announcement{Addr: *addr}}
	if f := strings.Split(*server, ","); len(f) == 3 {
		t.TLS = &sdk.ServerTLS{CAFile: f[0], CertFile: f[1], KeyFile: f[2]}
	}
	if f := strings.Split(*caller, ","); len(f) == 3 {
		t.Announce.TLS = &sdk.ClientTLS{CAFile: f[0], CertFile: f[1], KeyFile: f[2]}
	}
	l, err := sdk.ListenTCP(t)
	if err != nil {
		return err
	}
	return sdk.Serve(ctx, l, h)
}
