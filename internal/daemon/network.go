package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/service/network"
	"github.com/remora-plugins/remora/sdk"
	sdknetwork "github.com/remora-plugins/remora/sdk/network"
)

// openNetwork makes the network across hosts, nil if there is to be none.
func (d *Daemon) openNetwork(ctx context.Context) (*network.Service, error) {
	if d.boot.Network.Driver == "" || d.options.Network.Open == nil {
		return nil, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return network.Open(ctx, network.Options{
		Dir: filepath.Join(d.boot.StateDir, "network"), RunDir: filepath.Join(d.boot.RunDir, "network"),
		Driver: d.boot.Network.Driver, Scope: sdknetwork.Scope(d.boot.Network.Scope), Network: d.options.Network, Engines: d.networkEngines, Tunnel: []string{exe, "network", "tunnel"},
		FastPath: d.boot.Network.FastPath, Up: func() { d.settled.Reset(settle) },
		Podman:  []string{exe, "netavark", "--socket", d.boot.ControlSocket()},
		Version: d.options.Version, Log: d.log,
	})
}

// networkEngines are those that are given networks, whether they run already or not. Podman has no network plugins.
func (d *Daemon) networkEngines() []engine.Engine {
	if d.boot.Engine.None {
		return nil
	}
	sockets := d.boot.Engine.Sockets
	if len(sockets) == 0 {
		sockets = []string{engine.DockerSocket}
	}
	all := make([]engine.Engine, 0, len(sockets))
	for _, s := range sockets {
		if s != engine.PodmanSocket {
			all = append(all, engine.Engine{Socket: s})
		}
	}
	return all
}

// serveNetwork serves the network to engines on a socket of its own, where no pool has one of its name. A socket of that
// name that systemd keeps waits for its pool: an engine asks only once what is behind it.
func (d *Daemon) serveNetwork(ctx context.Context) (*api, error) {
	name := d.boot.Network.Driver
	if d.network == nil || slices.ContainsFunc(d.boot.Pools, func(p config.Pool) bool { return p.Name == name }) {
		return nil, nil
	}
	if slices.ContainsFunc(d.kept, func(at *door) bool { return d.fits(at, name) }) {
		d.log.WarnContext(ctx, "the network is not served: systemd keeps its socket for a pool of that name, and there is none", slog.String("name", name))
		return nil, nil
	}
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: d.socketPath(name), Group: d.boot.Socket.Group, Mode: d.boot.Socket.Mode})
	if err != nil {
		return nil, err
	}
	d.log.InfoContext(ctx, "network served", slog.String("socket", d.socketPath(name)))
	return start(ctx, func(ctx context.Context) error {
		return sdk.New(sdk.Options{Logger: d.log}, d.network.Plugins()...).Serve(ctx, l)
	}), nil
}

// giveWay closes the network's own socket for a pool of its name, which serves both.
func (d *Daemon) giveWay(pool string) error {
	if pool != d.boot.Network.Driver {
		return nil
	}
	return d.alone.close()
}

// closeNetwork ends the network's control; containers go on talking.
func (d *Daemon) closeNetwork(ctx context.Context) error {
	if d.network == nil {
		return nil
	}
	return d.network.Close(ctx)
}
