package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/logging"
	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// checkRun is what the flags of "remora plugin check" say.
type checkRun struct {
	check.Options
	format string
	load   bool
	soak   check.LoadOptions
	badge  string
	list   bool
}

func (a *app) pluginCheck() *cobra.Command {
	r := &checkRun{format: "text"}
	r.Skip, r.Create = map[string]string{}, map[string]string{}
	cmd := &cobra.Command{
		Use:   "check {NAME|FILE|URL}",
		Short: "Hold a running plugin to what engines ask of it",
		Long: "Hold a running plugin, by anyone and in any language, to what engines ask of it. NAME is looked for\n" +
			"where engines look; FILE is the path of a socket, or of a .spec or .json file; URL is unix:///path,\n" +
			"tcp://host:port, http:// or https://.\n\n" +
			"Each case has an ID, says what it asserts, and names the page or the file of an engine that asks for\n" +
			"it: --list shows them. For what fails, the request and the answer are shown. Volumes, networks and\n" +
			"pools that the cases make are named on standard error before the first call, and removed again, also\n" +
			"when a case fails or the run is interrupted. Nothing else that the plugin has is touched.\n\n" +
			"Exit status: 0 the plugin conforms, " + strconv.Itoa(exitDeviates) + " it deviates, " + strconv.Itoa(exitBroken) + " it is broken: it gives no answer or one that\n" +
			"no engine can read, or fails a case without which it is of no use. The others are those of all commands.",
		Example: "  remora plugin check sshfs --opt sshcmd=user@host:/data --opt password=$PASSWORD\n" +
			"  remora plugin check ./my.sock --engine --format junit > check.xml\n" +
			"  remora plugin check my --skip 'volume/remove-mounted=it asks nobody' --badge badge.svg",
		Args: usage(func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 0 && !r.list {
				return errors.New("want one NAME, FILE or URL")
			}
			return nil
		}),
	}
	r.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := r.valid(cmd); err != nil {
			return err
		}
		if r.list {
			return a.listCases(r)
		}
		return a.checkPlugin(cmd.Context(), r, args[0])
	}
	return cmd
}

func (r *checkRun) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.format, "format", r.format, "how to print: text, json, junit or tap")
	f.StringSliceVar(&r.Only, "only", nil, "run the case with this `ID` alone, or those that begin with it if it ends in a slash; may be repeated")
	f.Func("skip", "do not run case `ID=REASON`, which the plugin is known to fail; may be repeated", func(s string) error { return setPair(r.Skip, s) })
	f.FuncP("opt", "o", "make volumes and networks with option `KEY=VALUE`, in which {name} stands for the name of each; may be repeated", func(s string) error { return setPair(r.Create, s) })
	f.StringSliceVar(&r.Kinds, "kind", nil, "check it as this `KIND`, such as VolumeDriver, instead of what it says it is; may be repeated")
	f.BoolVar(&r.Engine, "engine", false, "also replay the calls of a real engine, command by command: run, restart, cp, crash …")
	f.BoolVar(&r.Away, "away", false, "the plugin's files and interfaces cannot be seen from here: leave out what looks at them")
	f.StringVar(&r.Subnet, "subnet", "198.18.0.0/16", "IPv4 `prefix` for the networks and pools that are made")
	f.Func("allow", "`REQUEST` that an authorization plugin allows, as \"METHOD /PATH [BODY]\"; may be repeated", example(&r.Allow))
	f.Func("deny", "`REQUEST` that it denies; may be repeated", example(&r.Deny))
	f.DurationVar(&r.Timeout, "timeout", 3*time.Minute, "how long one case may take")
	f.BoolVar(&r.load, "load", false, "also let several clients use it at once for a while, and show how long the calls take")
	f.DurationVar(&r.soak.Duration, "duration", 30*time.Second, "with --load, for how long")
	f.IntVar(&r.soak.Clients, "clients", 4, "with --load, how many clients")
	f.StringVar(&r.badge, "badge", "", "write a badge to `FILE`: a picture for .svg, for shields.io for .json")
	f.BoolVar(&r.list, "list", false, "show the cases and their sources, and check nothing")
	complete := func(flag string, words []string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	}
	ids := []string{}
	for _, c := range check.Cases() {
		ids = append(ids, c.ID)
	}
	complete("format", check.Formats)
	complete("only", ids)
	complete("kind", kinds())
}

func kinds() []string {
	return []string{check.Volume, check.Network, check.IPAM, check.AuthZ, check.Log, check.Metrics}
}

func example(to *[]check.Request) func(string) error {
	return func(s string) error {
		r, err := check.ParseRequest(s)
		*to = append(*to, r)
		return err
	}
}

func (r *checkRun) valid(cmd *cobra.Command) error {
	if !slices.Contains(check.Formats, r.format) {
		return usageError(cmd, fmt.Errorf("--format %q: want one of %s", r.format, strings.Join(check.Formats, ", ")))
	}
	for _, kind := range r.Kinds {
		if !slices.Contains(kinds(), kind) {
			return usageError(cmd, fmt.Errorf("--kind %q: want one of %s", kind, strings.Join(kinds(), ", ")))
		}
	}
	if ext := filepath.Ext(r.badge); r.badge != "" && ext != ".svg" && ext != ".json" {
		return usageError(cmd, fmt.Errorf("--badge %q: want a file that ends in .svg or .json", r.badge))
	}
	for _, f := range []string{"duration", "clients"} {
		if cmd.Flags().Changed(f) && !r.load {
			return usageError(cmd, fmt.Errorf("--%s is for --load", f))
		}
	}
	if r.Timeout <= 0 || r.soak.Duration <= 0 || r.soak.Clients <= 0 {
		return usageError(cmd, errors.New("--timeout, --duration and --clients are greater than 0"))
	}
	if _, err := r.Select(kinds()); err != nil {
		return usageError(cmd, err)
	}
	return nil
}

func (a *app) listCases(r *checkRun) error {
	r.Engine = true
	cases, err := r.Select(kinds())
	if err != nil {
		return err
	}
	type row struct {
		ID      string `json:"id"`
		Kind    string `json:"kind,omitempty"`
		Asserts string `json:"asserts"`
		Source  string `json:"source"`
		Basic   bool   `json:"basic,omitempty"`
		Engine  bool   `json:"engine,omitempty"`
	}
	rows := []row{}
	for _, c := range cases {
		rows = append(rows, row{c.ID, c.Kind, c.Asserts, c.Source, c.Basic, c.Engine})
	}
	if r.format == "json" {
		return a.printJSON(rows)
	}
	for _, c := range rows {
		mark := ""
		if c.Basic {
			mark = " (basic)"
		}
		if c.Engine {
			mark = " (with --engine)"
		}
		if err := a.printf("%s%s\n  %s\n  source: %s\n", c.ID, mark, c.Asserts, c.Source); err != nil {
			return err
		}
	}
	return nil
}

// findPlugin finds the plugin that an argument names.
func (a *app) findPlugin(arg string) (client.Endpoint, error) {
	if strings.Contains(arg, "://") {
		return client.Endpoint{Name: arg, Addr: arg}, nil
	}
	if strings.Contains(arg, "/") || strings.HasSuffix(arg, ".sock") {
		path, err := filepath.Abs(arg)
		if err != nil {
			return client.Endpoint{}, err
		}
		if _, err := os.Stat(path); err != nil {
			return client.Endpoint{}, errdefs.Errorf(errdefs.ErrNotFound, "plugin %q: there is no such file", arg)
		}
		if ext := filepath.Ext(path); ext == ".spec" || ext == ".json" {
			return client.ReadSpec(path)
		}
		addr := url.URL{Scheme: "unix", Path: path}
		return client.Endpoint{Name: strings.TrimSuffix(filepath.Base(path), ".sock"), Addr: addr.String(), Source: path}, nil
	}
	dirs := client.Dirs{}
	if conf, err := a.load(nil); err == nil { // what is wrong with it is nothing to other plugins
		dirs.Sockets = conf.PluginDir
	}
	return dirs.Find(arg)
}

func (a *app) checkPlugin(ctx context.Context, r *checkRun, arg string) error {
	ep, err := a.findPlugin(arg)
	if err != nil {
		return err
	}
	done, terminal := 0, logging.IsTerminal(a.Stderr)
	r.Done = func(result check.Result) {
		if done++; terminal {
			a.sayf("\r\x1b[K%d %s: %s", done, result.ID, result.Outcome)
		}
	}
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup(1)
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP) // a terminal that goes leaves no volumes behind
		defer stop()
	}
	p, err := check.Open(ep, r.Options)
	if err != nil {
		return err
	}
	if err := a.announce(ctx, p, ep); err != nil {
		return err
	}
	report := p.Run(ctx)
	if len(report.Results) == 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin %q: implements %s, and no case that was asked for is about that", ep.Name, strings.Join(report.Kinds, ", "))
	}
	var soaked error
	if r.load && ctx.Err() == nil {
		a.sayf("load: %d clients for %s\n", r.soak.Clients, r.soak.Duration)
		soaked = p.Soak(ctx, report, r.soak)
	}
	if terminal {
		a.sayf("\r\x1b[K")
	}
	if err := report.Write(a.Stdout, r.format); err != nil {
		return err
	}
	if err := writeBadge(r.badge, report); err != nil {
		return err
	}
	for _, left := range report.Left() {
		a.sayf("remora: left behind: %s\n", left)
	}
	if soaked != nil && report.Verdict != check.Conforms {
		a.sayf("remora: load: %v\n", soaked)
	}
	switch {
	case report.Interrupted:
		a.sayf("remora: interrupted\n")
		return failure{exitInterrupted}
	case report.Verdict == check.IsBroken:
		return failure{exitBroken}
	case report.Verdict == check.DeviatesFrom:
		return failure{exitDeviates}
	}
	return soaked
}

// announce says what the run is about to make.
func (a *app) announce(ctx context.Context, p *check.Plugin, ep client.Endpoint) error {
	found, err := p.Kinds(ctx)
	if errors.Is(err, fs.ErrPermission) { // that is no fault of the plugin
		return err
	}
	if err != nil {
		a.sayf("remora: %v\n", err)
		return nil // the case of activation judges it
	}
	a.sayf("checking plugin %s at %s: %s\n", ep.Name, ep.Addr, strings.Join(found, ", "))
	for _, line := range p.Plan(found) {
		a.sayf("makes, and removes again: %s\n", line)
	}
	return nil
}

func writeBadge(file string, report *check.Report) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	write := report.WriteSVG
	if filepath.Ext(file) == ".json" {
		write = report.WriteShields
	}
	return errdefs.Join(write(f), f.Close())
}
