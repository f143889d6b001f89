package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/managed"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plugin", Short: "Run managed plugins, and write plugins of your own", RunE: group,
		Long: "Install and run Docker's managed plugins, with or without dockerd. What is enabled is found by every\n" +
			"engine of this host under its name. A plugin is named as by docker: NAME, where \":latest\" may be\n" +
			"left out, its ID, or as much of the begin of its ID as no other has.",
	}
	cmd.AddCommand(a.pluginCreate(), a.pluginInstall(), a.pluginList(), a.pluginInspect(), a.pluginEnable(), a.pluginDisable(), a.pluginSet(),
		a.pluginUpgrade(), a.pluginPush(), a.pluginRemove(), a.pluginLogs(), a.pluginExec(), a.pluginTop(), a.pluginPrivileges(),
		a.pluginCheck(), a.pluginNew(), a.pluginTrace())
	return cmd
}

// plugins asks the daemon about managed plugins.
func (a *app) plugins(do func(control.Plugins) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c.Plugins())
}

// completePlugins completes names of plugins, as many as may be given, each once. A nil wanted wants all.
func (a *app) completePlugins(most int, wanted func(control.Plugin) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) < most {
			a.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				all, err := c.Plugins().List(ctx)
				for _, p := range all.Plugins {
					if !slices.Contains(args, p.Name) && (wanted == nil || wanted(p)) {
						names = append(names, p.Name)
					}
				}
				return err
			})
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func enabled(p control.Plugin) bool  { return p.Enabled }
func disabled(p control.Plugin) bool { return !p.Enabled }

func (a *app) pluginList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the managed plugins", Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	quiet := quietFlag(cmd, "the IDs")
	whole := cmd.Flags().Bool("no-trunc", false, "do not cut IDs and descriptions")
	filter := cmd.Flags().StringArrayP("filter", "f", nil, "show those alone for which `KEY=VALUE` holds: enabled=true, enabled=false, capability=volumedriver")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		keep, err := pluginFilter(*filter)
		if err != nil {
			return usageError(cmd, err)
		}
		return a.plugins(func(c control.Plugins) error {
			list, err := c.List(cmd.Context())
			if err != nil {
				return err
			}
			list.Plugins = slices.DeleteFunc(list.Plugins, func(p control.Plugin) bool { return !keep(p) })
			if *f == "json" {
				return a.printJSON(list.Plugins)
			}
			rows := make([][]string, 0, len(list.Plugins))
			for _, p := range list.Plugins {
				id, about := p.ID, p.Config.Description
				if !*whole {
					id, about = id[:min(len(id), 12)], cut(about, 45)
				}
				if *quiet {
					if err := a.printf("%s\n", id); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{id, p.Name, about, strconv.FormatBool(p.Enabled), pluginState(p)})
			}
			if *quiet {
				return nil
			}
			return a.table([]string{"ID", "NAME", "DESCRIPTION", "ENABLED", "STATE"}, rows)
		})
	}
	return cmd
}

func pluginState(p control.Plugin) string {
	if p.Error != "" {
		return p.State + ": " + p.Error
	}
	return p.State
}

// cut shortens a text to as many characters, as docker does.
func cut(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

func pluginFilter(filters []string) (func(control.Plugin) bool, error) {
	all := []func(control.Plugin) bool{}
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "enabled":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return nil, fmt.Errorf("--filter %s: want enabled=true or enabled=false", f)
			}
			all = append(all, func(p control.Plugin) bool { return p.Enabled == on })
		case "capability":
			all = append(all, func(p control.Plugin) bool { return managed.Provides(p.Config, value) })
		default:
			return nil, fmt.Errorf("--filter %s: no filter %q (there are: capability, enabled)", f, key)
		}
	}
	return func(p control.Plugin) bool {
		return !slices.ContainsFunc(all, func(keep func(control.Plugin) bool) bool { return !keep(p) })
	}, nil
}

func (a *app) pluginInspect() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect PLUGIN...", Short: "Show all that is known of managed plugins, as JSON",
		Long: "Show all that is known of managed plugins, as JSON: what \"docker plugin inspect\" shows, and the state,\n" +
			"the socket and the volumes. Of a secret the file is shown, and never the value.",
		Args: names("plugin"), ValidArgsFunction: a.completePlugins(1<<10, nil),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		found := []control.Plugin{}
		return a.plugins(func(c control.Plugins) error {
			err := a.each(args, func(name string) error {
				p, err := c.Inspect(cmd.Context(), control.PluginRequest{Name: name})
				if err == nil {
					found = append(found, p)
				}
				return err
			})
			return errdefs.Join(a.printJSON(found), err)
		})
	}
	return cmd
}

// pluginVerb is a verb for one or several plugins that prints the names of those for which it was done.
func (a *app) pluginVerb(cmd *cobra.Command, do func(ctx context.Context, c control.Plugins, name string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.plugins(func(c control.Plugins) error {
			return a.each(args, func(name string) error {
				if err := do(cmd.Context(), c, name); err != nil {
					return err
				}
				return a.printf("%s\n", name)
			})
		})
	}
	return cmd
}

func timeoutFlag(cmd *cobra.Command, def int) *int {
	return cmd.Flags().Int("timeout", def, "how many `SECONDS` a call to the plugin may take; 0 is no limit")
}

func (a *app) pluginEnable() *cobra.Command {
	cmd := &cobra.Command{
		Use: "enable PLUGIN", Short: "Run a managed plugin, now and after each start of the host",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completePlugins(1, disabled),
	}
	timeout := timeoutFlag(cmd, 30)
	return a.pluginVerb(cmd, func(ctx context.Context, c control.Plugins, name string) error {
		return c.Enable(ctx, control.PluginEnableRequest{Name: name, Timeout: *timeout})
	})
}

func (a *app) pluginDisable() *cobra.Command {
	cmd := &cobra.Command{
		Use: "disable PLUGIN", Short: "Stop a managed plugin",
		Long: "Stop a managed plugin. One that has volumes is in use, and stopped by --force alone; its volumes are\n" +
			"there again when it is enabled.",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completePlugins(1, enabled),
	}
	force := cmd.Flags().BoolP("force", "f", false, "although it is in use")
	return a.pluginVerb(cmd, func(ctx context.Context, c control.Plugins, name string) error {
		return c.Disable(ctx, control.PluginForceRequest{Name: name, Force: *force})
	})
}

func (a *app) pluginRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm PLUGIN...", Aliases: []string{"remove"}, SuggestFor: []string{"delete"}, Short: "Remove managed plugins, with all that they keep",
		Args: names("plugin"), ValidArgsFunction: a.completePlugins(1<<10, nil),
	}
	force := cmd.Flags().BoolP("force", "f", false, "although it is enabled or in use")
	return a.pluginVerb(cmd, func(ctx context.Context, c control.Plugins, name string) error {
		return c.Remove(ctx, control.PluginForceRequest{Name: name, Force: *force})
	})
}
