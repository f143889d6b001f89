package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) networkCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a network on all hosts",
		Long: "Make a network on all hosts. It is what \"docker network create -d remora --ipam-driver remora NAME\" does.\n" +
			"Without a subnet one is cut from the cluster's range.",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	req := control.NetworkCreateRequest{Options: map[string]string{}}
	flags := cmd.Flags()
	prefixesFlag(cmd, &req.Subnets, "subnet", "`subnet` of the network; one of IPv4, one of IPv6")
	prefixesFlag(cmd, &req.Range, "ip-range", "part of the `subnet` from which addresses are given")
	flags.BoolVar(&req.IPv6, "ipv6", false, "give containers IPv6 addresses too, of a subnet of the cluster's own if none is named")
	flags.BoolVar(&req.Internal, "internal", false, "keep containers of this network from reaching anything else")
	flags.FuncP("opt", "o", "`KEY=VALUE`: encrypted=false, multicast=true, mtu=1400; may be repeated", func(s string) error { return setPair(req.Options, s) })
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Name = args[0]
		return a.networks(func(c control.Networks) error {
			n, err := c.Create(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.printf("%s\n", n.ID)
		})
	}
	return cmd
}

// prefixesFlag adds a flag whose values are subnets.
func prefixesFlag(cmd *cobra.Command, to *[]netip.Prefix, name, help string) {
	cmd.Flags().Func(name, help+"; may be repeated", func(s string) error {
		p, err := parsePrefix(s)
		*to = append(*to, p)
		return err
	})
}

func (a *app) networkRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME...", Aliases: []string{"remove"}, SuggestFor: []string{"delete"}, Short: "Remove networks from all hosts", Args: names("network"),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			var all []string
			a.askNetwork(cmd.Context(), func(s control.NetworkStatus) {
				for _, n := range s.Networks {
					all = append(all, n.Name)
				}
			})
			return all, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.networks(func(c control.Networks) error {
				return a.each(args, func(name string) error {
					if err := c.Remove(cmd.Context(), control.NetworkRequest{Name: name}); err != nil {
						return err
					}
					return a.printf("%s\n", name)
				})
			})
		},
	}
}

func (a *app) networkExpose() *cobra.Command {
	cmd := &cobra.Command{
		Use: "expose [NETWORK]", Short: "Let the containers of a network reach this host",
		Long: "Let the containers of a network, \"remora\" if none is named, reach this host at the address that it has there,\n" +
			"which is printed. It stays so after a restart. The host reaches containers without it.",
		Args: usage(cobra.MaximumNArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	var req control.NetworkExposeRequest
	cmd.Flags().StringVarP(&req.Name, "name", "n", "", "`name` that containers find it by")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			req.Network = args[0]
		}
		return a.networks(func(c control.Networks) error {
			exposed, err := c.Expose(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.printf("%s\n", strings.Join(texts(exposed.Addresses), "\n"))
		})
	}
	return cmd
}

func (a *app) networkHide() *cobra.Command {
	return &cobra.Command{
		Use: "hide [NETWORK]", Short: "Take back what \"expose\" gave", Args: usage(cobra.MaximumNArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var req control.NetworkRequest
			if len(args) > 0 {
				req.Name = args[0]
			}
			return a.networks(func(c control.Networks) error { return c.Hide(cmd.Context(), req) })
		},
	}
}

func (a *app) networkDNSArgs() *cobra.Command {
	return &cobra.Command{
		Use: "dns-args", Short: "Print what docker run needs for a container to find names on all hosts",
		Example: "  docker run $(remora network dns-args) --net remora alpine ping web",
		Args:    usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.networks(func(c control.Networks) error {
				dns, err := c.DNS(cmd.Context())
				if err != nil {
					return err
				}
				var b strings.Builder
				for _, server := range dns.Servers {
					b.WriteString("--dns=" + server.String() + " ")
				}
				return a.printf("%s--dns-search=%s\n", b.String(), dns.Domain)
			})
		},
	}
}

func (a *app) networkDNSAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dns-add NAME ADDRESS...", Short: "Give addresses a name on all hosts",
		Long: "Give addresses a name on all hosts, until \"dns-remove\" takes it back. They need not be those of containers.",
		Args: usage(cobra.MinimumNArgs(2)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		addresses, err := parseAddresses(cmd, args[1:])
		if err != nil {
			return err
		}
		return a.networks(func(c control.Networks) error {
			return c.AddName(cmd.Context(), control.NetworkNameRequest{Name: args[0], Addresses: addresses})
		})
	}
	return cmd
}

func (a *app) networkDNSRemove() *cobra.Command {
	return &cobra.Command{
		Use: "dns-remove NAME [ADDRESS...]", Short: "Take back names that were given by hand on this host",
		Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			addresses, err := parseAddresses(cmd, args[1:])
			if err != nil {
				return err
			}
			return a.networks(func(c control.Networks) error {
				return c.RemoveName(cmd.Context(), control.NetworkNameRequest{Name: args[0], Addresses: addresses})
			})
		},
	}
}

func parseAddresses(cmd *cobra.Command, texts []string) ([]netip.Addr, error) {
	addresses := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		ip, err := parseAddr(text)
		if err != nil {
			return nil, usageError(cmd, fmt.Errorf("%q: %w", text, err))
		}
		addresses = append(addresses, ip)
	}
	return addresses, nil
}

func (a *app) networkDNSLookup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dns-lookup NAME", Short: "Show what a name is on this network",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.networks(func(c control.Networks) error {
			found, err := c.Lookup(cmd.Context(), control.NetworkNameRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if *f == "json" {
				return a.printJSON(found)
			}
			return a.nameTable(found)
		})
	}
	return cmd
}

// nameTable shows names, one line for each.
func (a *app) nameTable(all control.NetworkNames) error {
	rows := make([][]string, 0, len(all.Names))
	for _, n := range all.Names {
		addresses := make([]string, 0, len(n.Addresses))
		for _, ip := range n.Addresses {
			addresses = append(addresses, ip.String())
		}
		peer := n.Peer
		if !n.Reachable {
			peer += " (unreachable)"
		}
		rows = append(rows, []string{n.Name, strings.Join(addresses, ","), n.Network, short(n.Container), peer})
	}
	return a.table([]string{"NAME", "ADDRESSES", "NETWORK", "CONTAINER", "PEER"}, rows)
}
