package sshfs

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"maps"
	"time"

	"github.com/remora-plugins/remora/internal/definition"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Create writes down what the volume points to, or adopts a volume that points to the same.
// No server is asked.
func (d *driver) Create(_ context.Context, name string, opts map[string]string) error {
	if err := definition.CheckName(name); err != nil {
		return err
	}
	if len(opts) == 0 { // whatever it is
		if _, err := d.facts(name); !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	r, err := d.decode(name, opts)
	if err != nil {
		return err
	}
	return d.store.Create(name, func() error {
		f, err := d.facts(name)
		if err != nil {
			return err
		}
		return d.adopt(f, r)
	}, func() error { return d.build(name, r) })
}

// adopt compares what is there with what is asked for.
func (d *driver) adopt(f facts, r request) error {
	hint := "docker volume rm forgets it, and leaves the data on the server; then create it again"
	if f.source() != r.source {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "it points to %s at port %d already", f.source(), f.Port), hint)
	}
	same := maps.Equal(f.Options, r.given) && f.Password == (r.Password.Reveal() != "")
	if same && f.Password {
		was, err := d.store.ReadFile(f.Name, passwordName)
		if err != nil {
			return err
		}
		same = subtle.ConstantTimeCompare(was, []byte(r.Password.Reveal())) == 1
	}
	if !same {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "it has other options, or another password, already"), hint)
	}
	return nil
}

// build writes down the facts, and beside them what is not shown.
func (d *driver) build(name string, r request) error {
	f := facts{
		Name: name, ID: rand.Text(), Created: time.Now().UTC().Truncate(time.Second),
		User: r.source.user, Host: r.source.host, Port: r.source.port, Path: r.source.path,
		Options: r.given, Password: r.Password.Reveal() != "",
	}
	files := map[string]string{}
	if f.Password {
		files[passwordName] = r.Password.Reveal()
	}
	if r.HostKey != "" {
		line, err := knownHost(r.source, r.HostKey)
		if err != nil {
			return err
		}
		files[hostsName] = line
	}
	return d.store.Build(name, factsVersion, f, files)
}

// Remove forgets the volume. The directory on the server stays as it is.
func (d *driver) Remove(_ context.Context, name string) error { return d.store.Remove(name) }
