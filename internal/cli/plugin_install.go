package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/plugin"
	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/logging"
	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/registry"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const grantHelp = "grant all privileges that it asks for, without a question"

func (a *app) pluginInstall() *cobra.Command {
	cmd := &cobra.Command{
		Use: "install REFERENCE [KEY=VALUE...]", Short: "Install a managed plugin from a registry, set it, and run it",
		Long: "Install a managed plugin from a registry, set it, and run it. What it asks for beyond a container's\n" +
			"ordinary rights is shown first, and granted by an answer on the terminal or by --grant-all-permissions.\n" +
			"Passwords for registries are those of \"docker login\": ~/.docker/config.json.",
		Args: names("reference"), ValidArgsFunction: cobra.NoFileCompletions,
	}
	alias := cmd.Flags().String("alias", "", "`NAME` that it has here")
	off := cmd.Flags().Bool("disable", false, "do not run it yet")
	grant := cmd.Flags().Bool("grant-all-permissions", false, grantHelp)
	pin := cmd.Flags().String("pin", "", "`DIGEST` that it must have, such as sha256:…")
	timeout := timeoutFlag(cmd, 0)
	secrets := secretFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := settingsOf(args[1:]); err != nil {
			return usageError(cmd, err)
		}
		source, err := a.pluginSource(cmd.Context(), args[0], *pin)
		if err != nil {
			return err
		}
		if err := wholePaths(secrets); err != nil {
			return err
		}
		return a.plugins(func(c control.Plugins) error {
			granted, err := a.grant(cmd, c, source, *grant, "installing")
			if err != nil {
				return err
			}
			bar := a.bar()
			made, err := c.Install(cmd.Context(), control.PluginInstallRequest{
				PluginSource: source, Alias: *alias, Granted: granted, Settings: args[1:], Secrets: secrets, Disabled: *off, Timeout: *timeout,
			}, bar.show)
			bar.end()
			if err != nil {
				return err
			}
			return a.printf("%s\n", made.Name)
		})
	}
	return cmd
}

// pluginSource names a plugin in a registry, for who the caller is to it.
func (a *app) pluginSource(ctx context.Context, ref, pin string) (control.PluginSource, error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return control.PluginSource{}, err
	}
	auth, err := registry.FindAuth(ctx, "", parsed)
	if err != nil {
		return control.PluginSource{}, err
	}
	s := control.PluginSource{Reference: ref, Pin: pin}
	if auth != (registry.Auth{}) {
		s.Auth = auth.Encode()
	}
	return s, nil
}

// settingsOf refuses what is no KEY=VALUE.
func settingsOf(args []string) error {
	for _, s := range args {
		if key, _, ok := strings.Cut(s, "="); !ok || key == "" {
			return fmt.Errorf("%q: want KEY=VALUE", s)
		}
	}
	return nil
}

// secretFlag adds --secret to cmd.
func secretFlag(cmd *cobra.Command) map[string]string {
	secrets := map[string]string{}
	cmd.Flags().Func("secret", "`KEY=FILE`: give it the variable with what is in a file, read at each start and shown by no inspect; may be repeated", func(s string) error {
		key, file, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q: want KEY=FILE", key)
		}
		secrets[key] = file
		return nil
	})
	return secrets
}

// wholePaths makes the files of secrets paths that do not depend on where one is: the daemon is elsewhere.
func wholePaths(secrets map[string]string) error {
	for key, file := range secrets {
		if file == "" {
			continue
		}
		whole, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		secrets[key] = whole
	}
	return nil
}

// grant shows what a plugin asks for, and asks whether it is to have that.
func (a *app) grant(cmd *cobra.Command, c control.Plugins, source control.PluginSource, all bool, doing string) (plugin.Privileges, error) {
	asked, err := c.Privileges(cmd.Context(), source)
	if err != nil || all || len(asked.Privileges) == 0 {
		return asked.Privileges, err
	}
	a.sayf("Plugin %q is requesting the following privileges:\n", source.Reference)
	for _, p := range asked.Privileges {
		a.sayf(" - %s: %s\n", plain(p.Name), plain(fmt.Sprint(p.Value)))
	}
	denied := errdefs.Errorf(errdefs.ErrDenied, "permission denied while %s plugin %s", doing, source.Reference)
	if !logging.IsTerminal(a.Stdin) {
		return nil, errdefs.Hint(denied, "there is no terminal to ask on: look at what it asks for, and add --grant-all-permissions")
	}
	yes, err := a.asked(cmd.Context(), "Do you grant the above permissions?")
	if err == nil && !yes {
		err = denied
	}
	if err != nil {
		return nil, err
	}
	return asked.Privileges, nil
}

func (a *app) pluginPrivileges() *cobra.Command {
	cmd := &cobra.Command{
		Use: "privileges REFERENCE", Short: "Show what a managed plugin in a registry asks for",
		Long: "Show what a managed plugin in a registry asks for, before anything of it is installed.",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		source, err := a.pluginSource(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		return a.plugins(func(c control.Plugins) error {
			asked, err := c.Privileges(cmd.Context(), source)
			switch {
			case err != nil:
				return err
			case *f == "json":
				return a.printJSON(asked.Privileges)
			}
			rows := make([][]string, 0, len(asked.Privileges))
			for _, p := range asked.Privileges {
				rows = append(rows, []string{p.Name, strings.Join(p.Value, " "), p.Description})
			}
			return a.table([]string{"PRIVILEGE", "VALUE", "DESCRIPTION"}, rows)
		})
	}
	return cmd
}

func (a *app) pluginUpgrade() *cobra.Command {
	cmd := &cobra.Command{
		Use: "upgrade PLUGIN [REFERENCE]", Short: "Make another version of a managed plugin, which is disabled",
		Long: "Make another version of a managed plugin, which is disabled: that of the reference, or what is there now\n" +
			"where it came from. Its ID, what was set, and what lies below its propagated mount stay.",
		Args: usage(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.completePlugins(1, disabled),
	}
	grant := cmd.Flags().Bool("grant-all-permissions", false, grantHelp)
	skip := cmd.Flags().Bool("skip-remote-check", false, "do not ask where the reference is another plugin's")
	pin := cmd.Flags().String("pin", "", "`DIGEST` that it must have, such as sha256:…")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.plugins(func(c control.Plugins) error {
			p, err := c.Inspect(cmd.Context(), control.PluginRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if p.Enabled {
				return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "the plugin must be disabled before upgrading: plugin %s is enabled", p.Name), "remora plugin disable "+p.Name)
			}
			from := p.PluginReference
			to := from
			if len(args) == 2 {
				to = args[1]
			}
			source, err := a.pluginSource(cmd.Context(), to, *pin)
			if err != nil {
				return err
			}
			a.sayf("Upgrading plugin %s from %s to %s\n", p.Name, familiar(from), familiar(to))
			if !*skip && repository(from) != repository(to) {
				if err := a.another(cmd); err != nil {
					return err
				}
			}
			granted, err := a.grant(cmd, c, source, *grant, "upgrading")
			if err != nil {
				return err
			}
			bar := a.bar()
			made, err := c.Upgrade(cmd.Context(), control.PluginUpgradeRequest{Name: p.Name, PluginSource: source, Granted: granted}, bar.show)
			bar.end()
			if err != nil {
				return err
			}
			return a.printf("%s\n", made.Name)
		})
	}
	return cmd
}

// familiar leaves out what everybody knows of a reference.
func familiar(ref string) string {
	return strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
}

// repository is a reference without its tag and digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(familiar(ref), "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref
}

func (a *app) another(cmd *cobra.Command) error {
	if !logging.IsTerminal(a.Stdin) {
		return usageError(cmd, errors.New("plugin images do not match, and there is no terminal to ask on: add --skip-remote-check"))
	}
	yes, err := a.asked(cmd.Context(), "Plugin images do not match, are you sure?")
	if err == nil && !yes {
		err = errdefs.Errorf(errdefs.ErrDenied, "canceling upgrade request")
	}
	return err
}

func (a *app) pluginPush() *cobra.Command {
	cmd := &cobra.Command{
		Use: "push PLUGIN", Short: "Put a managed plugin into the registry of its name",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completePlugins(1, nil),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.plugins(func(c control.Plugins) error {
			p, err := c.Inspect(cmd.Context(), control.PluginRequest{Name: args[0]}) // it may be named by its ID
			if err != nil {
				return err
			}
			source, err := a.pluginSource(cmd.Context(), p.Name, "")
			if err != nil {
				return err
			}
			bar := a.bar()
			made, err := c.Push(cmd.Context(), control.PluginPushRequest{Name: p.Name, Auth: source.Auth}, bar.show)
			bar.end()
			if err != nil {
				return err
			}
			a.sayf("digest: %s\n", made.Digest)
			return a.printf("%s\n", made.Name)
		})
	}
	return cmd
}
