package control

import (
	"context"
	"encoding/json"
	"io"
	"net/url"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Plugins returns the methods about managed plugins.
func (c *Client) Plugins() Plugins { return clientPlugins{c} }

type clientPlugins struct{ c *Client }

// List implements [Plugins].
func (p clientPlugins) List(ctx context.Context) (PluginList, error) {
	return call[PluginList](ctx, p.c, MethodPluginList, struct{}{})
}

// Inspect implements [Plugins].
func (p clientPlugins) Inspect(ctx context.Context, req PluginRequest) (Plugin, error) {
	return call[Plugin](ctx, p.c, MethodPluginInspect, req)
}

// Privileges implements [Plugins].
func (p clientPlugins) Privileges(ctx context.Context, req PluginSource) (PluginPrivileges, error) {
	return call[PluginPrivileges](ctx, p.c, MethodPluginPrivileges, req)
}

// Create implements [Plugins].
func (p clientPlugins) Create(ctx context.Context, name string, tar io.Reader) (Plugin, error) {
	var made Plugin
	resp, err := p.c.send(ctx, MethodPluginCreate, "?name="+url.QueryEscape(name), tar)
	if err != nil {
		return made, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil {
		return made, errdefs.Errorf(errdefs.ErrUnavailable, "daemon: answer to %s: %w", MethodPluginCreate, err)
	}
	return made, nil
}

// Install implements [Plugins].
func (p clientPlugins) Install(ctx context.Context, req PluginInstallRequest, progress func(Progress)) (Plugin, error) {
	return callLong[Plugin](ctx, p.c, MethodPluginInstall, req, progress)
}

// Upgrade implements [Plugins].
func (p clientPlugins) Upgrade(ctx context.Context, req PluginUpgradeRequest, progress func(Progress)) (Plugin, error) {
	return callLong[Plugin](ctx, p.c, MethodPluginUpgrade, req, progress)
}

// Push implements [Plugins].
func (p clientPlugins) Push(ctx context.Context, req PluginPushRequest, progress func(Progress)) (PluginPushed, error) {
	return callLong[PluginPushed](ctx, p.c, MethodPluginPush, req, progress)
}

// Enable implements [Plugins].
func (p clientPlugins) Enable(ctx context.Context, req PluginEnableRequest) error {
	_, err := call[struct{}](ctx, p.c, MethodPluginEnable, req)
	return err
}

// Disable implements [Plugins].
func (p clientPlugins) Disable(ctx context.Context, req PluginForceRequest) error {
	_, err := call[struct{}](ctx, p.c, MethodPluginDisable, req)
	return err
}

// Set implements [Plugins].
func (p clientPlugins) Set(ctx context.Context, req PluginSetRequest) error {
	_, err := call[struct{}](ctx, p.c, MethodPluginSet, req)
	return err
}

// Remove implements [Plugins].
func (p clientPlugins) Remove(ctx context.Context, req PluginForceRequest) error {
	_, err := call[struct{}](ctx, p.c, MethodPluginRemove, req)
	return err
}

// Top implements [Plugins].
func (p clientPlugins) Top(ctx context.Context, req PluginRequest) (PluginTop, error) {
	return call[PluginTop](ctx, p.c, MethodPluginTop, req)
}

// Logs implements [Plugins].
func (p clientPlugins) Logs(ctx context.Context, req PluginLogsRequest, send func(PluginLine)) error {
	_, err := follow[struct{}](ctx, p.c, MethodPluginLogs, req, func(l line) {
		if l.Line != nil {
			send(*l.Line)
		}
	})
	return err
}

// Exec implements [Plugins].
func (p clientPlugins) Exec(ctx context.Context, req PluginExecRequest, stdin io.Reader, send func(PluginOutput)) (PluginExit, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return PluginExit{}, err
	}
	resp, err := p.c.send(ctx, MethodPluginExec, "?request="+url.QueryEscape(string(b)), stdin)
	if err != nil {
		return PluginExit{}, err
	}
	defer resp.Body.Close()
	return lines[PluginExit](ctx, resp.Body, func(l line) {
		if l.Output != nil {
			send(*l.Output)
		}
	})
}
