package sshfs

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// hidden begins the names of what is half made or half removed.
const hidden = ".remora-"

// Create writes down what the volume points to, or adopts a volume that points to the same.
// No server is asked.
func (d *driver) Create(_ context.Context, name string, opts map[string]string) error {
	if err := checkName(name); err != nil {
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
	for range 10 { // against another process that makes and removes it
		f, err := d.facts(name)
		if err == nil {
			return d.adopt(f, r)
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		if err = d.build(name, r); !errors.Is(err, fs.ErrExist) {
			return state.Classify(err)
		}
	}
	return errdefs.Errorf(errdefs.ErrExists, "%s is in the way", filepath.Join(d.root.Name(), name))
}

// adopt compares what is there with what is asked for.
func (d *driver) adopt(f facts, r request) error {
	hint := "docker volume rm forgets it, and leaves the data on the server; then create it again"
	if f.source() != r.source {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "it points to %s at port %d already", f.source(), f.Port), hint)
	}
	same := maps.Equal(f.Options, r.given) && f.Password == (r.Password.Reveal() != "")
	if same && f.Password {
		was, err := d.root.ReadFile(f.Name + "/" + passwordName)
		if err != nil {
			return state.Classify(err)
		}
		same = subtle.ConstantTimeCompare(was, []byte(r.Password.Reveal())) == 1
	}
	if !same {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "it has other options, or another password, already"), hint)
	}
	return nil
}

// build makes the directory of a volume aside and renames it, so that a volume is there
// with all that belongs to it or not at all.
func (d *driver) build(name string, r request) (err error) {
	done, err := d.working()
	if err != nil {
		return err
	}
	defer done()
	aside := hidden + "new-" + rand.Text()
	if err := d.root.Mkdir(aside, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = d.root.RemoveAll(aside)
		}
	}()
	f := facts{
		Name: name, ID: rand.Text(), Created: time.Now().UTC().Truncate(time.Second),
		User: r.source.user, Host: r.source.host, Port: r.source.port, Path: r.source.path,
		Options: r.given, Password: r.Password.Reveal() != "",
	}
	if f.Password {
		if err := d.write(aside+"/"+passwordName, r.Password.Reveal()); err != nil {
			return err
		}
	}
	if r.HostKey != "" {
		line, err := knownHost(r.source, r.HostKey)
		if err == nil {
			err = d.write(aside+"/"+hostsName, line)
		}
		if err != nil {
			return err
		}
	}
	if err := state.Create(d.root, aside+"/"+factsName, factsVersion, f); err != nil {
		return err
	}
	if err := state.SyncDir(d.root, aside); err != nil {
		return err
	}
	if err := d.rename(aside, name); err != nil {
		return err
	}
	return state.SyncDir(d.root, ".")
}

// write makes a file that only root can read.
func (d *driver) write(name, text string) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// rename does not replace.
func (d *driver) rename(from, to string) error {
	dir, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	err = unix.Renameat2(fd, from, fd, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without that; no directory with something in it is replaced
		err = unix.Renameat(fd, from, fd, to)
	}
	if errors.Is(err, unix.ENOTEMPTY) {
		return fs.ErrExist
	}
	return err
}

// Remove forgets the volume. The directory on the server stays as it is.
func (d *driver) Remove(_ context.Context, name string) error {
	if _, err := d.facts(name); err != nil && (errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalid)) {
		return err
	}
	gone := hidden + "gone-" + rand.Text()
	if err := d.rename(name, gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errNoVolume
		}
		return state.Classify(err)
	}
	if err := state.SyncDir(d.root, "."); err != nil {
		return state.Classify(err)
	}
	return state.Classify(d.root.RemoveAll(gone))
}
