// Command nullnet is a whole network plugin with its own IPAM, two kinds on one socket:
// networks that exist for the engine and connect nothing. A container keeps its loopback
// alone, and an address that nobody else gets.
//
//	nullnet -socket /run/docker/plugins/nullnet.sock -state /var/lib/nullnet
//	docker network create -d nullnet --ipam-driver nullnet quiet
//	docker run --network quiet …
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/ipam"
	"github.com/remora-plugins/remora/sdk/network"
)

// null is the driver. All that there is to remember, the Handler remembers.
type null struct{}

func (null) CreateNetwork(_ context.Context, n network.Network) error {
	for key := range n.Options {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: nullnet takes none", key)
	}
	return nil
}

func (null) CreateEndpoint(context.Context, network.Network, network.Endpoint) (network.Assigned, error) {
	return network.Assigned{}, nil
}

// Join names no interface, so the container gets none; nor should the engine give it one.
func (null) Join(context.Context, network.Network, network.Endpoint, network.Sandbox) (network.Attachment, error) {
	return network.Attachment{NoGatewayBridge: true}, nil
}

func (null) DeleteNetwork(context.Context, network.Network) error                    { return nil }
func (null) DeleteEndpoint(context.Context, network.Network, network.Endpoint) error { return nil }
func (null) Leave(context.Context, network.Network, network.Endpoint) error          { return nil }

func main() {
	socket := flag.String("socket", filepath.Join(sdk.PluginDir, "nullnet.sock"), "`path` of the socket")
	state := flag.String("state", "/var/lib/nullnet", "`directory` of what is remembered")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *socket, *state); err != nil {
		fmt.Fprintln(os.Stderr, "nullnet:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be done
	}
}

func serve(ctx context.Context, socket, state string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	nets, err := network.NewHandler(ctx, null{}, network.Options{Logger: log, State: network.Dir(filepath.Join(state, "networks"))})
	if err != nil {
		return err
	}
	pools, err := ipam.NewAllocator(ctx, ipam.Config{State: ipam.Dir(filepath.Join(state, "pools"))})
	if err != nil {
		return err
	}
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: socket})
	if err != nil {
		return err
	}
	return sdk.Serve(ctx, l, nets, ipam.NewHandler(pools, ipam.Options{Logger: log}))
}
