package daemon

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/service/plugins"
	"github.com/remora-plugins/remora/sdk"
)

// openPlugins makes the service of managed plugins.
func (d *Daemon) openPlugins() *plugins.Service {
	return plugins.Open(plugins.Options{
		Dir: d.boot.PluginsDir(), RunDir: filepath.Join(d.boot.RunDir, "plugins"), Discovery: d.boot.PluginDir,
		Socket:   sdk.UnixSocket{Group: d.boot.Socket.Group, Mode: d.boot.Socket.Mode},
		Insecure: d.boot.Plugins.Insecure, Pools: &d.pools, Version: d.options.Version, Life: d.life, Log: d.log,
	})
}

// serveEngine answers the engine's API, if it is to be.
func (d *Daemon) serveEngine(ctx context.Context) (*api, error) {
	engine := d.plugins.Engine()
	if engine == nil || !d.boot.Plugins.EngineAPI {
		return nil, nil
	}
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: d.boot.EngineSocket(), Group: d.boot.Control.Group, Mode: 0o660})
	if err != nil {
		return nil, err
	}
	d.log.InfoContext(ctx, "engine API served", slog.String("socket", d.boot.EngineSocket()))
	return start(ctx, func(ctx context.Context) error { return engine.Serve(ctx, l) }), nil
}
