// Package definition keeps what the volumes of a pool are, for drivers whose volumes are
// on other machines: on this host there is only what is written down of them.
//
//	DIR/NAME/volume.json    the facts of a volume
//	DIR/NAME/…              what belongs to them and is not shown, such as a password
//
// A volume is there with all that belongs to it or not at all, whenever a process is
// killed: its directory is made aside and renamed, and taken away the same way.
package definition

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

const (
	// FactsName is the file of a volume's facts.
	FactsName = "volume.json"
	// hidden begins the names of what is half made or half removed.
	hidden = ".remora-"
)

// ErrNoVolume says that a name has no facts. It is ErrNotFound.
var ErrNoVolume = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

// Store is the directory of the definitions of a pool. It is safe for concurrent use, by
// several processes too. Close it.
type Store struct{ root *os.Root }

// Open opens the directory, which it makes if need be.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, state.Classify(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, state.Classify(err)
	}
	return &Store{root}, nil
}

// Close closes the directory.
func (s *Store) Close() error { return s.root.Close() }

// CheckName refuses what is not one visible component of a path.
func CheckName(name string) error {
	if name == "" || len(name) > unix.NAME_MAX || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return errdefs.Errorf(errdefs.ErrInvalid, "name %q: not the name of a volume", name)
	}
	return nil
}

// Names returns the names of all volumes.
func (s *Store) Names() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, errdefs.As(errdefs.ErrUnavailable, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Volumes yields the volumes that are defined, as inspect shows them. One whose definition cannot
// be read is among them, with the error in its status.
func (s *Store) Volumes(ctx context.Context, inspect func(ctx context.Context, name string) (volume.Info, error)) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		names, err := s.Names()
		if err != nil {
			yield(volume.Info{}, err)
			return
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				yield(volume.Info{}, err)
				return
			}
			info, err := inspect(ctx, name)
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

// Read decodes the facts of a volume into v. A name that has none is [ErrNoVolume].
func (s *Store) Read(name string, version int, v any) error {
	if err := CheckName(name); err != nil {
		return err
	}
	err := state.Read(s.root, name+"/"+FactsName, version, v)
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return ErrNoVolume
	case err != nil:
		return errdefs.Hint(err, "mend the file, or remove its directory and create the volume again; the data on the server is not touched")
	}
	return nil
}

// ReadFile reads a file that belongs to a volume.
func (s *Store) ReadFile(name, file string) ([]byte, error) {
	b, err := s.root.ReadFile(name + "/" + file)
	return b, state.Classify(err)
}

// Path returns the path of a file that belongs to a volume.
func (s *Store) Path(name, file string) string { return filepath.Join(s.root.Name(), name, file) }

// Create calls adopt for a volume that is there, and build for one that is not, which has
// to call [Store.Build]. Either is called again where another process removes or makes the
// volume in between.
func (s *Store) Create(name string, adopt, build func() error) error {
	for range 10 {
		if err := adopt(); !errors.Is(err, ErrNoVolume) {
			return err
		}
		if err := build(); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return errdefs.Errorf(errdefs.ErrExists, "%s is in the way", filepath.Join(s.root.Name(), name))
}

// Build makes a volume of its facts and of the text of the files that belong to it, which
// only root can read. It is [fs.ErrExist] if something has that name.
func (s *Store) Build(name string, version int, facts any, files map[string]string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	done, err := s.Working()
	if err != nil {
		return state.Classify(err)
	}
	defer done()
	aside := hidden + "new-" + rand.Text()
	if err := s.build(aside, name, version, facts, files); err != nil {
		_ = s.root.RemoveAll(aside)
		return state.Classify(err)
	}
	return state.Classify(state.SyncDir(s.root, "."))
}

func (s *Store) build(aside, name string, version int, facts any, files map[string]string) error {
	if err := s.root.Mkdir(aside, 0o700); err != nil {
		return err
	}
	for file, text := range files {
		if err := s.write(aside+"/"+file, text); err != nil {
			return err
		}
	}
	if err := state.Create(s.root, aside+"/"+FactsName, version, facts); err != nil {
		return err
	}
	if err := state.SyncDir(s.root, aside); err != nil {
		return err
	}
	return s.rename(aside, name)
}

// write makes a file that only root can read.
func (s *Store) write(name, text string) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// rename does not replace.
func (s *Store) rename(from, to string) error {
	dir, err := s.root.Open(".")
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

// Remove forgets a volume with all that belongs to its definition, whatever is in it.
func (s *Store) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := s.root.Lstat(name + "/" + FactsName); errors.Is(err, fs.ErrNotExist) {
		return ErrNoVolume
	}
	gone := hidden + "gone-" + rand.Text()
	if err := s.rename(name, gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNoVolume
		}
		return state.Classify(err)
	}
	if err := state.SyncDir(s.root, "."); err != nil {
		return state.Classify(err)
	}
	return state.Classify(s.root.RemoveAll(gone))
}

// Working keeps the leftovers of a crash from being swept, among which would be what the
// caller is making: a pool whose configuration changes is opened anew while it works.
func (s *Store) Working() (done func(), err error) { return s.lock(unix.LOCK_SH) }

func (s *Store) lock(how int) (unlock func(), err error) {
	dir, err := s.root.Open(".")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), how); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return func() { _ = dir.Close() }, nil
}

// Sweep removes what a crash left half made or half removed, all of it definitions, and
// has more do the same for what a driver has elsewhere. While somebody is at work it does
// nothing.
func (s *Store) Sweep(more func() error) error {
	unlock, err := s.lock(unix.LOCK_EX | unix.LOCK_NB)
	if err != nil {
		return nil
	}
	defer unlock()
	entries, err := fs.ReadDir(s.root.FS(), ".")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), hidden) {
			err = errors.Join(err, s.root.RemoveAll(e.Name()))
		}
	}
	return errors.Join(err, more())
}
