package mount

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/definition"
	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// What lies in the directory of a pool, and in that of a volume.
const (
	volumesName  = "volumes"
	cacheName    = "cache"
	passwordName = "password"
)

const factsVersion = 1

// facts is what is written down of a volume.
type facts struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Type    string    `json:"type"`
	// Base is the pool's device of when the volume was made, if it lies below that one.
	Base         string `json:"base,omitempty"`
	Device       string `json:"device"`
	Username     string `json:"username,omitempty"`
	PasswordFile string `json:"password_file,omitempty"`
	PasswordEnv  string `json:"password_env,omitempty"`
	Config       string `json:"config,omitempty"`
	// HasPassword tells that there is one in the file beside.
	HasPassword bool `json:"password,omitempty"`
	// Options are those of the type, checked.
	Options map[string]string `json:"options,omitempty"`
	// Given are the options as they were given, without the password.
	Given map[string]string `json:"given,omitempty"`
}

// facts reads the facts of a volume. A name that has none is ErrNotFound.
func (d *driver) facts(name string) (facts, error) {
	var f facts
	if err := d.store.Read(name, factsVersion, &f); err != nil {
		return facts{}, err
	}
	return f, nil
}

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
	}, func() error {
		f, files := r.facts, map[string]string{}
		f.ID, f.Created = rand.Text(), time.Now().UTC().Truncate(time.Second)
		if f.HasPassword {
			files[passwordName] = r.password
		}
		return d.store.Build(name, factsVersion, f, files)
	})
}

// adopt compares what is there with what is asked for.
func (d *driver) adopt(f facts, r request) error {
	hint := "docker volume rm forgets it, and leaves the data on the server; then create it again"
	if f.Type != r.Type || f.Device != r.Device {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "it is %s of type %s already", f.Device, f.Type), hint)
	}
	same := maps.Equal(f.Given, r.Given) && f.HasPassword == r.HasPassword
	if same && f.HasPassword {
		was, err := d.store.ReadFile(f.Name, passwordName)
		if err != nil {
			return err
		}
		same = subtle.ConstantTimeCompare(was, []byte(r.password)) == 1
	}
	if !same {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "it has other options, or another password, already"), hint)
	}
	return nil
}

// Remove forgets the volume. The data on the server stays as it is. It is ErrInUse while some of that is not there yet.
func (d *driver) Remove(ctx context.Context, name string) error {
	f, err := d.facts(name)
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid) {
		return err
	}
	if f.ID != "" {
		if err := checkSent(ctx, filepath.Join(d.dir, cacheName, f.ID)); err != nil {
			return err
		}
	}
	if err := d.store.Remove(name); err != nil {
		return err
	}
	if f.ID == "" { // its facts cannot be read
		return nil
	}
	return state.Classify(os.RemoveAll(filepath.Join(d.dir, cacheName, f.ID)))
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
	status := map[string]any{"type": f.Type, "device": f.Device, "state": d.monitor.State(name)}
	if f.HasPassword {
		status["password"] = "in a file"
	}
	return volume.Info{Name: name, CreatedAt: f.Created, External: true, Options: f.Given, Status: status}, nil
}

// withPool returns facts with the credentials of the pool, if the volume lies below the
// pool's device: no other server is given them.
func (d *driver) withPool(f facts) facts {
	if f.Base != "" {
		f.Username, f.PasswordFile, f.PasswordEnv, f.Config = d.config.Username, d.config.PasswordFile, d.config.PasswordEnv, d.config.Config
	}
	return f
}

// password returns the password of a volume, "" if there is none.
func (d *driver) password(f facts) (string, error) {
	var p []byte
	var err error
	what := "password"
	switch {
	case f.HasPassword:
		p, err = d.store.ReadFile(f.Name, passwordName)
	case f.PasswordFile != "":
		what = "password file"
		var path string
		if path, err = remote.SecretPath(d.secrets, f.PasswordFile); err == nil {
			p, err = remote.ReadSecret(path)
		}
		p = []byte(strings.TrimRight(string(p), "\r\n"))
	case f.PasswordEnv != "":
		val, ok := os.LookupEnv(f.PasswordEnv)
		if !ok {
			return "", errdefs.Errorf(errdefs.ErrInvalid, "password: the daemon's environment has no %q", f.PasswordEnv)
		}
		p = []byte(val)
	default:
		return "", nil
	}
	if err == nil {
		err = checkPassword(string(p))
	}
	if err != nil {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", what, err)
	}
	return string(p), nil
}
