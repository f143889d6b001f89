// Package mount is the driver whose volumes are whatever mount(8) or a FUSE program knows:
// shares of NFS and SMB, GlusterFS, CephFS, WebDAV, buckets, and what rclone reaches.
//
//	STATE/mount/POOL/volumes/NAME/volume.json    the facts of a volume: what is mounted, and how
//	STATE/mount/POOL/volumes/NAME/password       the password, if it was given as an option
//	STATE/mount/POOL/secrets/                    passwords and files that volumes may name
//	STATE/mount/POOL/cache/ID/                   what rclone keeps of a volume
//	RUN/mount/POOL/mounts/KEY/                   of one mount: whose it is, and the files its program is given
//
// The data is the server's, and nothing here deletes any of it: to remove a volume is to
// forget it. A volume is made without asking the server; a mount tells the truth.
package mount

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/definition"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("mount", "whatever mount(8) or a FUSE program mounts: NFS, SMB, WebDAV, buckets and more", open).
		WithOptions(catalog.Describe[options]())
}

// lookEvery is how often the mounts of a pool are looked at.
const lookEvery = 10 * time.Second

type driver struct {
	dir     string // of the pool
	run     string // of the pool, for what a reboot ends
	store   *definition.Store
	config  config
	secrets string
	looks   remote.Looks
	monitor *remote.Monitor
	log     *slog.Logger
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	d := &driver{
		dir: filepath.Join(env.StateDir, "mount", env.PoolName), run: filepath.Join(env.RunDir, "mount", env.PoolName),
		config: c, log: env.Log(),
	}
	d.secrets = filepath.Join(d.dir, "secrets")
	if err := d.configure(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(d.run, mountsName), 0o700); err != nil {
		return nil, state.Classify(err)
	}
	store, err := definition.Open(filepath.Join(d.dir, volumesName))
	if err != nil {
		return nil, err
	}
	d.store = store
	if err := store.Sweep(d.sweep); err != nil {
		d.log.WarnContext(ctx, "what a crash left cannot be removed", slog.Any("error", err))
	}
	d.monitor = remote.NewMonitor(ctx, lookEvery, d.log, d.mounted, d.Look)
	return d, nil
}

// Look asks the server of a volume too, since rclone and davfs2 answer without it for a while.
func (d *driver) Look(ctx context.Context, name, mountpoint string) error {
	f, err := d.facts(name)
	if err != nil {
		return d.looks.At(ctx, mountpoint)
	}
	return d.look(ctx, f, mountpoint)
}

// configure checks the keys of the pool.
func (d *driver) configure() error {
	c := d.config
	invalid := func(key, format string, args ...any) error {
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q: "+format, append([]any{key}, args...)...)
	}
	if c.Secrets != "" {
		if !filepath.IsAbs(c.Secrets) || hasControl(c.Secrets) {
			return invalid("secrets", "%q is not an absolute path", c.Secrets)
		}
		d.secrets = filepath.Clean(c.Secrets)
	}
	for _, name := range c.Allow {
		if !wantsLeave(name) {
			return invalid("allow", "%q needs no leave, or is no option", name)
		}
	}
	if c.PasswordFile != "" && c.PasswordEnv != "" {
		return errdefs.Errorf(errdefs.ErrInvalid, `keys "password_file" and "password_env": leave one out`)
	}
	for key, path := range map[string]string{"password_file": c.PasswordFile, "config": c.Config} {
		if _, err := remote.SecretPath(d.secrets, path); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "key %q: %w", key, err)
		}
	}
	if c.Type == "" {
		for key, given := range map[string]bool{
			"device": c.Device != "", "options": len(c.Options) > 0, "username": c.Username != "",
			"password_file": c.PasswordFile != "", "password_env": c.PasswordEnv != "", "config": c.Config != "",
		} {
			if given {
				return invalid(key, `it wants a "type" beside it`)
			}
		}
		return nil
	}
	t, err := typeOf(c.Type)
	if err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "key \"type\": %w", err)
	}
	if t.block && !c.AllowDevices {
		return errNoDevices(c.Type)
	}
	if _, err := d.poolOptions(t); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "key \"options\": %w", err)
	}
	if c.Device == "" {
		return nil
	}
	if t.join == nil {
		return invalid("device", "volumes of type %s have no directories of their own in one: give the device to each", c.Type)
	}
	if _, err := t.parse(t.join(c.Device, "x")); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "key \"device\": %w", err)
	}
	return nil
}

// Close ends the looking at what is mounted, which stays.
func (d *driver) Close() error {
	d.monitor.Close()
	return d.store.Close()
}

// Ping looks at every volume that is mounted: those are what somebody waits for. Where
// none is, nothing is known to be wrong.
func (d *driver) Ping(ctx context.Context) error { return d.monitor.Ping(ctx) }

// Scope is local: what a volume points to is written down on this host.
func (d *driver) Scope() string { return "local" }

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
