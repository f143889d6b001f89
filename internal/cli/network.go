package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/mesh/tunnel"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) networkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "network", Short: "Connect containers across hosts: encrypted, and by name", RunE: group,
		Long: "Connect containers across hosts. \"launch\" has a host found a cluster or join one; from then on it has\n" +
			"a network \"remora\", the same on all hosts, and \"docker network create -d remora\" makes more.\n" +
			"\"status\" shows how it is and what is wrong.",
	}
	cmd.AddCommand(a.networkLaunch(), a.networkConnect(), a.networkForget(), a.networkStatus(), a.networkReport(), a.networkStop(),
		a.networkReset(), a.networkRemovePeer(), a.networkCreate(), a.networkRemove(), a.networkExpose(), a.networkHide(), a.networkAttach(), a.networkDetach(), a.networkDNSArgs(), a.networkDNSAdd(),
		a.networkDNSRemove(), a.networkDNSLookup(), a.networkDNS(), a.networkPodman(), networkTunnel())
	return cmd
}

// networkTunnel is what the daemon starts where the kernel cannot encrypt.
func networkTunnel() *cobra.Command {
	return &cobra.Command{
		Use: "tunnel NAME SOCKET MTU", Hidden: true, Short: "Carry encrypted packets; the daemon starts it", Args: usage(cobra.ExactArgs(3)),
		RunE: func(_ *cobra.Command, args []string) error { return tunnel.Serve(args) },
	}
}

// networks asks the daemon about the network.
func (a *app) networks(do func(control.Networks) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c.Networks())
}

func (a *app) networkLaunch() *cobra.Command {
	cmd := &cobra.Command{
		Use: "launch [PEER...]", Short: "Have this host found a cluster, or join that of its peers",
		Long: "Have this host found a cluster, or join that of the hosts that are named, as HOST or HOST:PORT. All\n" +
			"hosts of a cluster know one password: it is read from a file or from the variable\n" +
			"REMORA_NETWORK_PASSWORD. Who founds without one gets one made, and the line with which others join.\n\n" +
			"What was launched comes up again with the daemon. Launched once more, peers are added to those that\n" +
			"are known already.",
		Example: "  remora network launch\n" +
			"  remora network launch --password-file /etc/remora/password host1",
	}
	var req control.NetworkLaunchRequest
	flags := cmd.Flags()
	file := flags.String("password-file", "", "read the password from the first line of `FILE`; - is standard input")
	flags.StringVar(&req.Password, "password", "", "the `password`; other users of this host can read it while the command runs")
	flags.BoolVar(&req.NoPassword, "no-password", false, "let every host join that can reach this one, and send data as it is")
	flags.StringVar(&req.Nickname, "nickname", "", "`name` of this host for people (the host's name)")
	flags.StringVar(&req.Listen, "listen", "", "`address` on which other hosts are heard (:6783)")
	flags.Uint16Var(&req.Tunnel, "tunnel-port", 0, "UDP `port` for encrypted data (6784)")
	flags.StringVar(&req.Domain, "dns-domain", "", "`domain` of names (remora.local)")
	flags.IntVar(&req.MTU, "mtu", 0, "size of the largest packet to other hosts in `bytes` (found out)")
	prefixFlag(cmd, &req.Range, "ipalloc-range", "`subnet` from which those of networks are cut (10.32.0.0/12)")
	prefixFlag(cmd, &req.Subnet, "ipalloc-default-subnet", "`subnet` of the network remora (the first /16 of the range)")
	flags.Func("trusted-subnet", "do not encrypt between hosts in this `subnet` that both have it; may be repeated", func(s string) error {
		p, err := parsePrefix(s)
		req.Trusted = append(req.Trusted, p)
		return err
	})
	flags.Func("advertise", "`address` at which other hosts reach this one (those of its interfaces); may be repeated", func(s string) error {
		ip, err := parseAddr(s)
		req.Advertise = append(req.Advertise, ip)
		return err
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		password, err := a.networkPassword(cmd, *file, req.Password)
		if err != nil {
			return err
		}
		req.Password, req.Peers = password, args
		if req.NoPassword {
			req.Password = ""
			a.sayf("remora: warning: without a password every host that reaches this one may join, and data is sent unencrypted\n")
		}
		return a.networks(func(c control.Networks) error {
			launched, err := c.Launch(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.launched(launched)
		})
	}
	return cmd
}

// networkPassword finds the password where people put it; empty is none.
func (a *app) networkPassword(cmd *cobra.Command, file, flag string) (string, error) {
	given := 0
	for _, flag := range []string{"password", "password-file", "no-password"} {
		if cmd.Flags().Changed(flag) {
			given++
		}
	}
	switch {
	case given > 1:
		return "", usageError(cmd, errors.New("--password, --password-file and --no-password: want one of them"))
	case cmd.Flags().Changed("password"):
		if flag == "" {
			return "", usageError(cmd, errors.New("--password is empty; to have none, say --no-password"))
		}
		return flag, nil
	case file == "":
		return a.getenv("REMORA_NETWORK_PASSWORD"), nil
	}
	var raw []byte
	var err error
	if file == "-" {
		raw, err = io.ReadAll(io.LimitReader(a.Stdin, 64<<10))
	} else {
		if fi, err := os.Stat(file); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
			a.sayf("remora: warning: password file %q: others may read it (mode %04o)\n", file, fi.Mode().Perm())
		}
		raw, err = os.ReadFile(file)
	}
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // the file is named already
		}
		return "", fmt.Errorf("password file %q: %w", file, err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "password file %q: its first line is empty", file)
	}
	return line, nil
}

// launched says what was launched, and how others join.
func (a *app) launched(l control.NetworkLaunched) error {
	for _, w := range l.Warnings {
		a.sayf("remora: warning: %s\n", w)
	}
	switch {
	case l.Cluster == "":
		a.sayf("joining: \"remora network status\" tells when this host is in\n")
		return nil
	case !l.Founded:
		a.sayf("joined, or joining: \"remora network status\" tells\n")
		return a.printf("%s\n", l.Cluster)
	}
	a.sayf("a cluster was founded")
	if len(l.Listen) > 0 {
		join := "remora network launch "
		if l.Password != "" {
			join = "REMORA_NETWORK_PASSWORD='" + l.Password + "' remora network launch "
		}
		a.sayf("; another host joins it by\n\n    %s%s\n\n", join, l.Listen[0])
	} else {
		a.sayf("\n")
	}
	return a.printf("%s\n", l.Cluster)
}

// prefixFlag adds a flag whose value is a subnet.
func prefixFlag(cmd *cobra.Command, p *netip.Prefix, name, help string) {
	cmd.Flags().Func(name, help, func(s string) (err error) {
		*p, err = parsePrefix(s)
		return err
	})
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("want a subnet such as 10.80.0.0/16")
	}
	return p.Masked(), nil
}

func parseAddr(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return ip, errors.New("want an address such as 10.80.0.9")
	}
	return ip, nil
}

func (a *app) networkConnect() *cobra.Command {
	cmd := &cobra.Command{
		Use: "connect PEER...", Short: "Dial more hosts",
		Long: "Dial more hosts, as HOST or HOST:PORT, now and whenever they are not connected. Hosts that are in the\n" +
			"cluster already learn of each other: one of them is enough.",
		Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	replace := cmd.Flags().Bool("replace", false, "dial these alone, and forget the others")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.networks(func(c control.Networks) error {
			return c.Connect(cmd.Context(), control.NetworkConnectRequest{Peers: args, Replace: *replace})
		})
	}
	return cmd
}

func (a *app) networkForget() *cobra.Command {
	return &cobra.Command{
		Use: "forget PEER...", Short: "Do not dial hosts any more",
		Long: "Do not dial hosts any more, named as they were given. Connections that there are stay, and the other\n" +
			"hosts go on dialling whom they know: to shut a host out there is \"remora network rmpeer\".",
		Args: usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			var targets []string
			a.askNetwork(cmd.Context(), func(s control.NetworkStatus) {
				for _, t := range s.Targets {
					targets = append(targets, t.Address)
				}
			})
			return targets, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.networks(func(c control.Networks) error {
				return c.Forget(cmd.Context(), control.NetworkPeersRequest{Peers: args})
			})
		},
	}
}

// askNetwork asks for the status, for a completion.
func (a *app) askNetwork(ctx context.Context, use func(control.NetworkStatus)) {
	a.ask(ctx, func(ctx context.Context, c *control.Client) error {
		s, err := c.Networks().Status(ctx)
		if err == nil {
			use(s)
		}
		return err
	})
}

func (a *app) completePeers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var peers []string
	a.askNetwork(cmd.Context(), func(s control.NetworkStatus) {
		for _, p := range s.Peers {
			if p.State != "self" {
				peers = append(peers, p.Nickname)
			}
		}
	})
	return peers, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) networkStop() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Leave the cluster alone until the next launch; containers go on talking",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.networks(func(c control.Networks) error { return c.Stop(cmd.Context()) })
		},
	}
}

func (a *app) networkReset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reset", Short: "Leave the cluster for good, with no trace on this host",
		Long: "Leave the cluster for good: its networks are removed from this host's engine, the addresses that this\n" +
			"host owned are given to a peer, and interfaces, routes, rules and what was remembered are removed. It is\n" +
			"refused while containers are on these networks, and, without --force, while no peer is reachable.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	force := cmd.Flags().Bool("force", false, "leave even if no peer can take over the addresses")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !*yes {
			if err := a.confirm(cmd, "Leave the cluster for good?"); err != nil {
				return err
			}
		}
		return a.networks(func(c control.Networks) error {
			return c.Reset(cmd.Context(), control.NetworkResetRequest{Force: *force})
		})
	}
	return cmd
}

func (a *app) networkRemovePeer() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rmpeer PEER...", Short: "Declare hosts gone for good, and take over their addresses",
		Long: "Declare hosts gone for good, named by nickname or identity. This host takes over their addresses, their\n" +
			"names are withdrawn, and they are refused by every host; one that comes back joins as a new one. It\n" +
			"is safe to do this on several hosts at once.",
		Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: a.completePeers,
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			if err := a.confirm(cmd, "Shut out "+strings.Join(args, ", ")+"?"); err != nil {
				return err
			}
		}
		return a.networks(func(c control.Networks) error {
			removed, err := c.RemovePeer(cmd.Context(), control.NetworkPeersRequest{Peers: args})
			if err != nil {
				return err
			}
			for _, peer := range slices.Sorted(maps.Keys(removed.Peers)) {
				if err := a.printf("%s: %d addresses taken over\n", peer, removed.Peers[peer]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}
