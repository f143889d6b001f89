package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/netavark"
	"github.com/remora-plugins/remora/internal/sandbox"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// netavarkTime bounds a call of Podman's, which has no limit of its own.
const netavarkTime = 45 * time.Second

// netavarkCommand is the plugin that Podman's network program starts.
func (a *app) netavarkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "netavark [create|setup|teardown|info] [PATH]", Hidden: true, Short: "Connect Podman's containers; Podman starts it",
		Args: usage(cobra.MaximumNArgs(2)),
	}
	socket := cmd.Flags().String("socket", "", "the daemon's control `socket`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), netavarkTime)
		defer cancel()
		c, err := a.client()
		if *socket != "" {
			c, err = control.NewClient(*socket), nil
		}
		if err == nil {
			defer c.Close()
			var answer bytes.Buffer // an answer or an error, and never half of one
			err = netavark.Serve(ctx, podmanPlugin{c.Networks()}, args, a.Stdin, &answer)
			if err == nil {
				_, err = a.Stdout.Write(answer.Bytes())
				return err
			}
		}
		if err := netavark.Tell(a.Stdout, err); err != nil {
			return err
		}
		return failure{exitFailed}
	}
	return cmd
}

// podmanPlugin asks the daemon for what Podman asks for.
type podmanPlugin struct{ c control.Networks }

// Info implements [netavark.Plugin].
func (podmanPlugin) Info() netavark.Info {
	return netavark.Info{Version: version(), APIVersion: netavark.APIVersion}
}

// ipamDriver is as what Podman keeps who gives out a network's addresses: anything but its own "host-local".
const ipamDriver = "remora"

// Create implements [netavark.Plugin].
func (p podmanPlugin) Create(ctx context.Context, n netavark.Network) (netavark.Network, error) {
	if err := rootful(n); err != nil {
		return n, err
	}
	req := control.NetworkPodmanCreateRequest{IPv6: n.IPv6}
	req.Name, req.Internal, req.Options = n.Name, n.Internal, n.Options
	if d := n.IPAMOptions["driver"]; d != "" && d != "host-local" && d != ipamDriver {
		return n, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "network %q: addresses by %q: the cluster gives them out", n.Name, d), "leave out --ipam-driver")
	}
	if len(n.DNSServers) > 0 {
		return n, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "network %q: name servers of its own", n.Name), "leave out --dns; \"podman run --dns\" sets those of a container")
	}
	for _, s := range n.Subnets {
		if s.Gateway.IsValid() {
			return n, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "network %q: gateway %s: each host has one of its own", n.Name, s.Gateway), "leave out --gateway")
		}
		req.Subnets = append(req.Subnets, s.Subnet.Masked())
		if s.Range == nil {
			continue
		}
		part, ok := s.Range.Prefix(s.Subnet)
		if !ok {
			return n, errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "network %q: range from %s to %s: is no subnet", n.Name, s.Range.Start, s.Range.End), "give --ip-range as a subnet, such as 10.50.8.0/24")
		}
		req.Range = append(req.Range, part)
	}
	made, err := p.c.PodmanCreate(ctx, req)
	if err != nil {
		return n, err
	}
	ranges := map[netip.Prefix]*netavark.Range{}
	for _, s := range n.Subnets {
		ranges[s.Subnet.Masked()] = s.Range
	}
	n.Subnets = nil
	for _, g := range made.Gateways {
		n.Subnets = append(n.Subnets, netavark.Subnet{Subnet: g.Masked(), Gateway: g.Addr(), Range: ranges[g.Masked()]})
		n.IPv6 = n.IPv6 || g.Addr().Is6()
	}
	n.Internal, n.IPAMOptions = made.Internal, map[string]string{"driver": ipamDriver}
	return n, nil
}

// Setup implements [netavark.Plugin].
func (p podmanPlugin) Setup(ctx context.Context, path string, c netavark.Container) (s netavark.Status, err error) {
	if err := rootful(c.Network); err != nil {
		return s, err
	}
	// The daemon may not see what Podman has mounted, but it sees what this process has open.
	ns, err := os.Open(path)
	if err != nil {
		return s, errdefs.Errorf(errdefs.ErrNotFound, "network namespace: %w", err)
	}
	defer ns.Close()
	req := request(c)
	req.Namespace, req.Interface, req.Addresses, req.MAC = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()), c.Options.Interface, c.Options.Addresses, c.Options.MAC
	done, err := p.c.PodmanSetup(ctx, req)
	if err != nil {
		return s, err
	}
	i := netavark.Interface{MAC: done.MAC}
	for _, at := range done.Addresses {
		i.Subnets = append(i.Subnets, netavark.Address{Address: at})
	}
	s.Interfaces = map[string]netavark.Interface{c.Options.Interface: i}
	s.Search, s.Servers = []string{}, []netip.Addr{}
	if c.Network.DNS {
		s.Search, s.Servers = done.Search, done.Servers
	}
	return s, nil
}

// Teardown implements [netavark.Plugin]. A container is removed without the daemon too, or while the network is stopped: its interface
// goes, by which the daemon sees later what else there is to take back.
func (p podmanPlugin) Teardown(ctx context.Context, path string, c netavark.Container) error {
	if err := rootful(c.Network); err != nil {
		return err
	}
	err := p.c.PodmanTeardown(ctx, request(c))
	if errors.Is(err, errdefs.ErrUnavailable) {
		return sandbox.Detach(path, c.Options.Interface)
	}
	return err
}

func request(c netavark.Container) control.NetworkPodmanRequest {
	req := control.NetworkPodmanRequest{Network: c.Network.Name, Container: c.ID, Name: c.Name, Aliases: c.Options.Aliases}
	for _, s := range c.Network.Subnets {
		req.Subnets = append(req.Subnets, s.Subnet)
	}
	return req
}

// rootful refuses Podman of another user than root, which runs its network program as the root of a user namespace: there nobody
// is called what the owner of the host's first process is.
func rootful(n netavark.Network) error {
	var first unix.Stat_t
	if os.Geteuid() == 0 && unix.Stat("/proc/1", &first) == nil && first.Uid == 0 {
		return nil
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "network %q: rootless Podman cannot have a part in it, as its interfaces are the host's", n.Name), "run podman as root")
}
