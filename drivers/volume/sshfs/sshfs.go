// Package sshfs is the driver whose volumes are directories on servers that are reached by
// SSH, mounted by sshfs(1).
//
//	STATE/sshfs/POOL/volumes/NAME/volume.json    the facts of a volume: what it points to
//	STATE/sshfs/POOL/volumes/NAME/password       the password, if it was given as an option
//	STATE/sshfs/POOL/volumes/NAME/known_hosts    the host key, if it was given as an option
//	STATE/sshfs/POOL/known_hosts                 the host keys that the pool trusts
//	STATE/sshfs/POOL/secrets/                    keys and passwords that volumes may name
//
// The data is the server's, and nothing here deletes any of it: to remove a volume is to
// forget it. A volume is made without asking the server; a mount tells the truth.
package sshfs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/definition"
	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Driver describes the driver for the catalogue.
func Driver() catalog.Volume {
	return catalog.NewVolume("sshfs", "a directory on a server that is reached by SSH", open).
		WithOptions(catalog.Describe[options]())
}

// lookEvery is how often the mounts of a pool are looked at.
const lookEvery = 10 * time.Second

type driver struct {
	dir        string // of the pool
	run        string // for mounts of a moment
	store      *definition.Store
	config     config
	base       *source // nil if there is none
	options    map[string]string
	allow      []string
	knownHosts string
	secrets    string
	looks      remote.Looks
	monitor    *remote.Monitor
	log        *slog.Logger
}

func open(ctx context.Context, c config, env catalog.Env) (volume.Driver, error) {
	d := &driver{
		dir: filepath.Join(env.StateDir, "sshfs", env.PoolName), run: filepath.Join(env.RunDir, "sshfs", env.PoolName),
		config: c, log: env.Log(),
	}
	d.knownHosts, d.secrets = filepath.Join(d.dir, "known_hosts"), filepath.Join(d.dir, "secrets")
	if err := d.configure(c); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.run, 0o700); err != nil {
		return nil, state.Classify(err)
	}
	store, err := definition.Open(filepath.Join(d.dir, volumesName))
	if err != nil {
		return nil, err
	}
	d.store = store
	if err := store.Sweep(d.sweepMounts); err != nil {
		d.log.WarnContext(ctx, "what a crash left cannot be removed", slog.Any("error", err))
	}
	d.monitor = remote.NewMonitor(ctx, lookEvery, d.log, d.mounted, func(ctx context.Context, _, at string) error { return d.looks.At(ctx, at) })
	return d, nil
}

// configure checks the keys of the pool.
func (d *driver) configure(c config) error {
	invalid := func(key string, err error) error {
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q: %w", key, err)
	}
	for key, path := range map[string]*string{"known_hosts": &d.knownHosts, "secrets": &d.secrets} {
		given := map[string]string{"known_hosts": c.KnownHosts, "secrets": c.Secrets}[key]
		if given == "" {
			continue
		}
		if !filepath.IsAbs(given) || strings.ContainsFunc(given, isControl) {
			return invalid(key, errdefs.Errorf(errdefs.ErrInvalid, "%q is not an absolute path", given))
		}
		*path = filepath.Clean(given)
	}
	for _, name := range c.Allow {
		if k, ok := known[name]; !ok || k != unsafe {
			return invalid("allow", errdefs.Errorf(errdefs.ErrInvalid, "%q needs no leave, or is no option", name))
		}
	}
	d.allow = c.Allow
	opts, err := split(c.Options)
	if err != nil {
		return err
	}
	var all []string // the pool may give what its volumes may not
	for name, k := range known {
		if k == unsafe {
			all = append(all, name)
		}
	}
	if d.options, err = check(opts, all); err != nil {
		return invalid("options", err)
	}
	if c.PasswordFile != "" && c.PasswordEnv != "" {
		return errdefs.Errorf(errdefs.ErrInvalid, `keys "password_file" and "password_env": leave one out`)
	}
	for key, path := range map[string]string{"identity_file": c.IdentityFile, "password_file": c.PasswordFile} {
		if _, err := remote.SecretPath(d.secrets, path); err != nil {
			return invalid(key, err)
		}
	}
	if c.Base == "" {
		return nil
	}
	base, err := parseSource(c.Base)
	if err != nil {
		return invalid("base", err)
	}
	if base.path == "" || strings.TrimSuffix(base.path, "/") == "" {
		return invalid("base", errdefs.Errorf(errdefs.ErrInvalid, "%q is not a directory of its own", c.Base))
	}
	base.port = c.Port
	d.base = &base
	return checkPort("key", c.Port)
}

// Close ends the looking at what is mounted, which stays.
func (d *driver) Close() error {
	d.monitor.Close()
	return d.store.Close()
}

// Ping looks at every volume that is mounted: those are what somebody waits for. Where
// none is, nothing is known to be wrong.
func (d *driver) Ping(ctx context.Context) error { return d.monitor.Ping(ctx) }

// mounted returns what volumes of the pool are mounted where, by the table of mounts: it
// knows them after a restart too.
func (d *driver) mounted() (map[string]string, error) {
	mounts, err := mount.List("/")
	if err != nil {
		return nil, err
	}
	ids := map[string]string{} // mountpoints
	for _, m := range mounts {
		if id, ok := idOf(m); ok {
			ids[id] = m.Mountpoint
		}
	}
	at := map[string]string{}
	if len(ids) == 0 {
		return at, nil
	}
	names, err := d.store.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := d.facts(name)
		if point, ok := ids[f.ID]; err == nil && ok {
			at[name] = point
		}
	}
	return at, nil
}
