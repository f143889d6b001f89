package sshfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// What lies in the directory of a pool, and in that of a volume.
const (
	volumesName  = "volumes"
	factsName    = "volume.json"
	passwordName = "password"
	hostsName    = "known_hosts"
)

const factsVersion = 1

// facts is what is written down of a volume.
type facts struct {
	Name string `json:"name"`
	// ID is also in the kernel's table of mounts, and tells there what is ours.
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// User, Host, Port and Path are where the data is: what the pool's base was when the
	// volume was made goes on to be its own.
	User string `json:"user,omitempty"`
	Host string `json:"host"`
	Port int64  `json:"port"`
	Path string `json:"path"`
	// Options are as they were given, without the password.
	Options map[string]string `json:"options,omitempty"`
	// Password tells that there is one in the file beside.
	Password bool `json:"password,omitempty"`
}

func (f facts) source() source { return source{f.User, f.Host, f.Path, f.Port} }

var errNoVolume = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

// checkName refuses what is not one visible component of a path.
func checkName(name string) error {
	if name == "" || len(name) > unix.NAME_MAX || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return errdefs.Errorf(errdefs.ErrInvalid, "name %q: not the name of a volume", name)
	}
	return nil
}

// facts reads the facts of a volume. A name that has none is ErrNotFound.
func (d *driver) facts(name string) (facts, error) {
	var f facts
	if err := checkName(name); err != nil {
		return f, err
	}
	err := state.Read(d.root, name+"/"+factsName, factsVersion, &f)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return f, errNoVolume
	case err != nil:
		return facts{}, errdefs.Hint(err, "mend the file, or remove its directory and create the volume again; the data on the server is not touched")
	}
	return f, nil
}

// Volumes yields the volumes that are defined. No server is asked.
func (d *driver) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		names, err := d.names()
		if err != nil {
			yield(volume.Info{}, err)
			return
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				yield(volume.Info{}, err)
				return
			}
			info, err := d.Inspect(ctx, name)
			if errors.Is(err, errdefs.ErrNotFound) {
				continue // removed since
			}
			if err != nil {
				info = volume.Info{Name: name, Status: map[string]any{"error": err.Error()}}
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Inspect returns one volume as Volumes would yield it.
func (d *driver) Inspect(_ context.Context, name string) (volume.Info, error) {
	f, err := d.facts(name)
	if err != nil {
		return volume.Info{}, err
	}
	status := map[string]any{"remote": f.source().String(), "port": f.Port, "state": "not mounted"}
	if f.Password {
		status["password"] = "in a file"
	}
	if h, ok := d.monitor.Of(name); ok {
		status["state"] = "answers"
		if h.Err != nil {
			status["state"] = fmt.Sprintf("does not answer since %s: %v", h.Since.UTC().Format(time.RFC3339), h.Err)
		}
	}
	return volume.Info{Name: name, CreatedAt: f.Created, Options: f.Options, Status: status}, nil
}

// Scope is local: what a volume points to is written down on this host.
func (d *driver) Scope() string { return "local" }

// working keeps the leftovers of a crash from being swept, among which would be what the
// caller is making: a pool whose configuration changes is opened anew while it works.
func (d *driver) working() (done func(), err error) {
	return d.lock(unix.LOCK_SH)
}

func (d *driver) lock(how int) (unlock func(), err error) {
	dir, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), how); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return func() { _ = dir.Close() }, nil
}

// sweep removes what a crash left half made or half removed, all of it definitions, unless
// somebody is at work.
func (d *driver) sweep() {
	unlock, err := d.lock(unix.LOCK_EX | unix.LOCK_NB)
	if err != nil {
		return
	}
	defer unlock()
	entries, err := fs.ReadDir(d.root.FS(), ".")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), hidden) {
			err = errors.Join(err, d.root.RemoveAll(e.Name()))
		}
	}
	if err = errors.Join(err, d.sweepMounts()); err != nil {
		d.log.Warn("what a crash left cannot be removed", slog.Any("error", err))
	}
}
