package cli

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) networkStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", SuggestFor: []string{"ls", "list", "inspect"}, Short: "Show how the network is, and what is wrong", Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.networkShow(cmd, *f, a.networkSummary)
	}
	for _, part := range []struct {
		use, short string
		show       func(control.NetworkStatus) error
	}{
		{"peers", "List the hosts, with the connections of each", a.networkPeers},
		{"connections", "List the connections of this host", a.networkConnections},
		{"targets", "List the hosts that this host dials", a.networkTargets},
		{"networks", "List the networks", a.networkList},
		{"ipam", "List who owns which share of the addresses", a.networkShares},
	} {
		sub := &cobra.Command{Use: part.use, Short: part.short, Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions}
		f := formatFlag(sub)
		sub.RunE = func(cmd *cobra.Command, _ []string) error { return a.networkShow(cmd, *f, part.show) }
		cmd.AddCommand(sub)
	}
	cmd.AddCommand(a.networkStatusDNS())
	return cmd
}

// networkShow asks for the status and shows it, or all of it as JSON.
func (a *app) networkShow(cmd *cobra.Command, f format, show func(control.NetworkStatus) error) error {
	return a.networks(func(c control.Networks) error {
		s, err := c.Status(cmd.Context())
		if err != nil {
			return err
		}
		if f == "json" {
			return a.printJSON(s)
		}
		return show(s)
	})
}

func (a *app) networkReport() *cobra.Command {
	return &cobra.Command{
		Use: "report", Short: "Print all that is known of the network as JSON", Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.networkShow(cmd, "json", nil) },
	}
}

func (a *app) networkStatusDNS() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dns", Short: "List the names", Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.networks(func(c control.Networks) error {
			all, err := c.Lookup(cmd.Context(), control.NetworkNameRequest{})
			if err != nil {
				return err
			}
			if *f == "json" {
				return a.printJSON(all)
			}
			return a.nameTable(all)
		})
	}
	return cmd
}

// networkSummary shows all on one page, in lines with their labels at the right.
func (a *app) networkSummary(s control.NetworkStatus) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%14s: %s\n", label, fmt.Sprintf(format, args...))
	}
	line("Version", "%s", s.Version)
	line("State", "%s", s.State)
	if s.State == "off" {
		b.WriteString("\nLaunch it with \"remora network launch\".\n")
		return a.printf("%s", b.String())
	}
	b.WriteString("\n")
	if s.State != "stopped" { // then nothing of this is known
		networkDetails(s, line, &b)
	}
	for i, problem := range s.Problems {
		if i == 0 && s.State != "stopped" {
			b.WriteString("\n")
		}
		line("Problem", "%s", problem.Text)
		if problem.Mend != "" {
			line("do", "%s", problem.Mend)
		}
	}
	if s.State == "stopped" && len(s.Problems) == 0 {
		b.WriteString("Launch it again with \"remora network launch\".\n")
	}
	return a.printf("%s", b.String())
}

func yesNo(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func orNone(list []string) string { return cmp.Or(strings.Join(list, " "), "none") }

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, v.String())
	}
	return out
}

func networkNames(list []control.NetworkInfo) []string {
	out := make([]string, 0, len(list))
	for _, n := range list {
		out = append(out, n.Name)
	}
	return out
}

// counted says how many there are, and how many of each state, in the order in which they come.
func counted[T any](list []T, state func(T) string) string {
	var order []string
	count := map[string]int{}
	for _, v := range list {
		s := state(v)
		if count[s] == 0 {
			order = append(order, s)
		}
		count[s]++
	}
	parts := make([]string, 0, len(order))
	for _, s := range order {
		parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
	}
	if len(parts) == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", len(list), strings.Join(parts, ", "))
}

// networkDetails writes how a network is that runs.
func networkDetails(s control.NetworkStatus, line func(string, string, ...any), b *strings.Builder) {
	line("Cluster", "%s", cmp.Or(s.Cluster, "none yet"))
	line("Peer", "%s (%s)", s.Nickname, s.Peer)
	line("Password", "%s", yesNo(s.Password, "yes", "none: every host may join"))
	line("Listen", "%s", orNone(texts(s.Listen)))
	line("Tunnel", "%s", cmp.Or(s.Tunnel, "none"))
	line("Trusted", "%s", orNone(texts(s.Trusted)))
	line("Targets", "%s", counted(s.Targets, func(t control.NetworkTarget) string { return t.State }))
	connections, established := 0, 0
	for _, p := range s.Peers {
		for _, c := range p.Connections {
			connections++
			if c.State == "established" {
				established++
			}
		}
	}
	line("Peers", "%s, with %d connections (%d established)", counted(s.Peers, func(p control.NetworkPeer) string { return p.State }), connections, established)
	b.WriteString("\n")
	line("Range", "%s", s.Range)
	line("Networks", "%s", orNone(networkNames(s.Networks)))
	line("Domain", "%s", s.DNS.Domain)
	line("DNS", "%s, %d names", orNone(texts(s.DNS.Servers)), s.DNS.Entries)
	line("Installed", "%s", yesNo(s.DNS.Installed, "yes: all containers ask it", "no: containers need \"remora network dns-args\", or \"remora network dns install\" once"))
}

func (a *app) networkPeers(s control.NetworkStatus) error {
	rows := [][]string{}
	for _, p := range s.Peers {
		state := p.State
		if p.State == "unreachable" {
			state += " for " + long(time.Since(p.Since))
		}
		rows = append(rows, []string{p.Nickname, p.Peer, p.Version, state, strconv.FormatUint(p.Addresses, 10)})
		for _, c := range p.Connections {
			rows = append(rows, []string{"  " + arrow(c), c.Peer, c.Address, c.State, latency(c.Latency)})
		}
	}
	return a.table([]string{"NAME", "PEER", "VERSION", "STATE", "ADDRESSES"}, rows)
}

func arrow(c control.NetworkConnection) string { return yesNo(c.Outbound, "-> ", "<- ") + c.Nickname }

func latency(d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return d.Round(10 * time.Microsecond).String()
}

func (a *app) networkConnections(s control.NetworkStatus) error {
	rows := [][]string{}
	for _, p := range s.Peers {
		if p.State == "self" {
			continue
		}
		handshake, endpoint, mtu := "-", "-", "-"
		if !p.Handshake.IsZero() {
			handshake = ago(p.Handshake)
		}
		if p.Endpoint != (netip.AddrPort{}) {
			endpoint = p.Endpoint.String()
		}
		if p.MTU > 0 {
			mtu = strconv.Itoa(p.MTU)
		}
		rows = append(rows, []string{
			p.Nickname, p.State, cmp.Or(p.Path, "-"), cmp.Or(p.Transport, "-") + yesNo(p.FastPath, ", fast path", ""),
			yesNo(p.Encrypted, "encrypted", "plain"), mtu, latency(p.Latency), handshake, endpoint,
		})
	}
	return a.table([]string{"PEER", "STATE", "PATH", "TRANSPORT", "DATA", "MTU", "LATENCY", "HANDSHAKE", "ENDPOINT"}, rows)
}

func (a *app) networkTargets(s control.NetworkStatus) error {
	rows := [][]string{}
	for _, t := range s.Targets {
		why := t.Error
		if !t.Next.IsZero() {
			why += "; again in " + long(time.Until(t.Next))
		}
		rows = append(rows, []string{t.Address, t.State, why})
	}
	return a.table([]string{"TARGET", "STATE", "WHY"}, rows)
}

func (a *app) networkList(s control.NetworkStatus) error {
	rows := [][]string{}
	for _, n := range s.Networks {
		rows = append(rows, []string{
			n.Name, n.ID, orNone(texts(n.Subnets)), yesNo(n.Encrypted, "encrypted", "plain"),
			orNone(texts(n.Blocks)), strconv.FormatUint(n.Used, 10), cmp.Or(n.Error, "ok"),
		})
	}
	return a.table([]string{"NAME", "ID", "SUBNETS", "DATA", "OWN BLOCKS", "USED", "STATE"}, rows)
}

func (a *app) networkShares(s control.NetworkStatus) error {
	rows := [][]string{}
	for _, n := range s.Networks {
		for _, p := range s.Peers {
			share, ok := n.Owned[p.Nickname]
			if !ok {
				continue
			}
			used := ""
			if p.State == "self" {
				used = fmt.Sprintf("%d in use", n.Used)
			}
			rows = append(rows, []string{n.Name, p.Nickname, fmt.Sprintf("%.1f %%", 100*share), yesNo(p.State == "unreachable", "unreachable", ""), used})
		}
	}
	return a.table([]string{"NETWORK", "PEER", "SHARE", "STATE", "USED"}, rows)
}
