package cli

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/csi/check"
	"github.com/remora-plugins/remora/internal/csi/quirk"
)

func (a *app) csiCheck() *cobra.Command {
	var o check.Options
	cmd := &cobra.Command{
		Use:   "check ENDPOINT",
		Short: "Say what can be done with a CSI driver that runs, before it is configured",
		Long: "Say what a CSI driver that runs is, what can be done with it here and what cannot, which quirks of it are\n" +
			"known, and whether this host fits. ENDPOINT is the path of its socket; no daemon and no configuration\n" +
			"is needed. The driver is asked only what every orchestrator asks of it at its start: nothing is made,\n" +
			"listed or changed.\n\n" +
			"Exit status: 0 it can be used, 1 it cannot, or does not answer. The others are those of all commands.",
		Example: "  remora csi check /run/csi/csi.sock\n" +
			"  remora csi check /run/csi/node.sock --controller /run/csi/controller.sock --format json\n" +
			"  remora csi check /run/csi/csi.sock --quirk as:cephfs.csi.ceph.com",
		Args: usage(cobra.ExactArgs(1)),
	}
	format := formatFlag(cmd)
	cmd.Flags().StringVar(&o.Controller, "controller", "", "`ENDPOINT` of the driver's controller, where it has one of its own")
	cmd.Flags().StringSliceVar(&o.Quirks, "quirk", nil, "take the driver to have the quirk `NAME`, or not with -NAME, or all of another one with as:DRIVER; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Endpoint = args[0]
		for _, path := range []*string{&o.Endpoint, &o.Controller} {
			if *path == "" || strings.Contains(*path, ":") {
				continue
			}
			abs, err := filepath.Abs(*path)
			if err != nil {
				return err
			}
			*path = abs
		}
		o.Dir = "/run/remora/csi"
		if conf, err := a.load(nil); err == nil { // what is wrong with it is nothing to a driver
			o.Dir = filepath.Join(conf.RunDir, "csi")
		}
		return a.checkCSI(cmd.Context(), o, string(*format))
	}
	return cmd
}

func (a *app) checkCSI(ctx context.Context, o check.Options, format string) error {
	r, err := check.Run(ctx, o)
	if err != nil {
		return err
	}
	if format == "json" {
		err = a.printJSON(r)
	} else {
		err = a.printCSI(r)
	}
	if err == nil && !r.Usable() {
		return failure{exitFailed}
	}
	return err
}

func (a *app) printCSI(r *check.Report) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("driver %s, version %s", r.Driver.Name, yesNo(r.Driver.Version != "", r.Driver.Version, "not told"))
	if r.Node.ID != "" {
		line("this host is node %s%s", r.Node.ID, yesNo(r.Node.MaxVolumes > 0, fmt.Sprintf(", and can have %d volumes", r.Node.MaxVolumes), ""))
	}
	for _, k := range slices.Sorted(maps.Keys(r.Node.Topology)) {
		line("topology %s=%s", k, r.Node.Topology[k])
	}
	line("")
	for _, c := range []struct {
		of    string
		names []string
	}{
		{"plugin", r.Capabilities.Plugin},
		{"expansion", r.Capabilities.Expansion},
		{"controller", r.Capabilities.Controller},
		{"node", r.Capabilities.Node},
		{"group controller", r.Capabilities.Group},
	} {
		if len(c.names) > 0 {
			line("%s: %s", c.of, strings.Join(c.names, ", "))
		}
	}
	line("")
	for _, x := range r.Can {
		line("%-5s %s: %s", yesNo(x.Can, "yes", "no"), x.What, x.Text)
	}
	for _, q := range r.Quirks {
		line("quirk %s: %s%s", q.Name, q.Means, aside(q.Needs, q.Note))
	}
	for _, x := range r.Host {
		line("%-5s %s: %s", x.Result, x.Check, x.Text)
		if x.Mend != "" {
			line("      mend: %s", x.Mend)
		}
	}
	return a.printf("%s", b.String())
}

// aside is what is particular about a quirk, in brackets.
func aside(needs []string, note string) string {
	all := slices.Clone(needs)
	if note != "" {
		all = append(all, note)
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, "; ") + ")"
}

func (a *app) csiQuirks() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quirks [DRIVER]",
		Short: "Show what is known against CSI drivers",
		Long: "Show what is known against CSI drivers, and where from: of the one that calls itself DRIVER, or of all.\n" +
			"The key quirks of a pool adds to it, and takes away from it.",
		Args: usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return quirk.Drivers(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	format := formatFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		entries := quirk.Table()
		if len(args) == 1 {
			entries = quirk.For(args[0], "").Entries()
		}
		if *format == "json" {
			if entries == nil {
				entries = []quirk.Entry{}
			}
			return a.printJSON(entries)
		}
		if len(entries) == 0 {
			a.sayf("remora: nothing is known against a CSI driver %q\n", args[0])
			return nil
		}
		driver := ""
		for _, e := range entries {
			if e.Driver != driver {
				driver = e.Driver
				if err := a.printf("%s\n", driver); err != nil {
					return err
				}
			}
			if err := a.printf("  %s%s: %s%s\n      source: %s\n", e.ID, yesNo(e.Versions == "", "", " "+e.Versions), e.Means(), aside(e.Needs, e.Note), e.Source); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
