package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/control"
)

// finding is one thing that the doctor looked at.
type finding struct {
	// Check is what was looked at, Result is "ok", "warn" or "fail".
	Check  string `json:"Check"`
	Result string `json:"Result"`
	Text   string `json:"Text"`
	// Mend is what to do about it.
	Mend string `json:"Mend,omitempty"`
}

// doctor looks at the host.
type doctor struct {
	conf   *config.Config
	client *control.Client
	status *control.Status // nil without a daemon
	env    func(string) string
	found  []finding
}

func (d *doctor) ok(check, text string)         { d.add(check, "ok", text, "") }
func (d *doctor) warn(check, text, mend string) { d.add(check, "warn", text, mend) }
func (d *doctor) fail(check, text, mend string) { d.add(check, "fail", text, mend) }

func (d *doctor) add(check, result, text, mend string) {
	d.found = append(d.found, finding{check, result, strings.TrimSpace(text), mend})
}

// doctorTime bounds each look at something that may not answer.
const doctorTime = 5 * time.Second

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at the host, and say what to mend",
		Long: "Look at the configuration, the daemon, its pools, plugins, repositories and schedules, the engines on this\n" +
			"host, the files in which engines find plugins, and the network across hosts where it was launched. Exits with 1 when something does not work.",
		Args:              usage(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		found, err := a.diagnose(cmd.Context())
		if err != nil {
			return err
		}
		if *f == "json" {
			err = a.printJSON(found)
		} else {
			err = a.printFindings(found)
		}
		for _, x := range found {
			if err == nil && x.Result == "fail" {
				return failure{exitFailed}
			}
		}
		return err
	}
	return cmd
}

func (a *app) diagnose(ctx context.Context) ([]finding, error) {
	d := &doctor{env: a.getenv}
	conf, err := a.load(nil)
	if err != nil {
		d.fail("configuration", err.Error(), "correct it; \"remora config check\" looks again")
		return d.found, nil
	}
	d.conf, d.client = conf, control.NewClient(conf.ControlSocket())
	defer d.client.Close()
	file := conf.File
	if file == "" {
		file = "none; defaults and environment"
	}
	d.ok("configuration", file)
	for _, w := range conf.Warnings {
		d.warn("configuration", w, "")
	}
	d.daemon(ctx)
	d.pools()
	d.plugins()
	d.backups(ctx)
	d.propagation()
	d.discovery(ctx)
	d.docker(ctx)
	d.podman()
	d.network(ctx)
	return d.found, nil
}

func (a *app) printFindings(found []finding) error {
	for _, x := range found {
		if err := a.printf("%-4s  %s: %s\n", x.Result, x.Check, x.Text); err != nil {
			return err
		}
		if x.Mend != "" {
			if err := a.printf("      mend: %s\n", strings.ReplaceAll(x.Mend, "\n", "\n            ")); err != nil {
				return err
			}
		}
	}
	return nil
}
