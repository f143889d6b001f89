package sshfs

import (
	"context"
	"iter"
	"time"

	"github.com/remora-plugins/remora/sdk/volume"
)

// What lies in the directory of a pool, and in that of a volume.
const (
	volumesName  = "volumes"
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

// facts reads the facts of a volume. A name that has none is ErrNotFound.
func (d *driver) facts(name string) (facts, error) {
	var f facts
	if err := d.store.Read(name, factsVersion, &f); err != nil {
		return facts{}, err
	}
	return f, nil
}

// Volumes yields the volumes that are defined. No server is asked.
func (d *driver) Volumes(ctx context.Context) iter.Seq2[volume.Info, error] {
	return d.store.Volumes(ctx, d.Inspect)
}

// Inspect returns one volume as Volumes would yield it.
func (d *driver) Inspect(_ context.Context, name string) (volume.Info, error) {
	f, err := d.facts(name)
	if err != nil {
		return volume.Info{}, err
	}
	status := map[string]any{"remote": f.source().String(), "port": f.Port, "state": d.monitor.State(name)}
	if f.Password {
		status["password"] = "in a file"
	}
	return volume.Info{Name: name, CreatedAt: f.Created, External: true, Options: f.Options, Status: status}, nil
}

// Scope is local: what a volume points to is written down on this host.
func (d *driver) Scope() string { return "local" }
