// Package store keeps everything of managed plugins that is on disk: the blobs as they came from or
// go to a registry, the file systems that were unpacked from them, and one record for each plugin.
//
//	DIR/lock                    held while the store is open
//	DIR/blobs/sha256/HEX        whole, with the digest that is its name
//	DIR/ingest/                 blobs in the making
//	DIR/tmp/                    plugins in the making, and what is being removed
//	DIR/plugins/ID/record.json  the record
//	DIR/plugins/ID/rootfs…      the file system that the record names
//	DIR/plugins/ID/propagated-mount
//
// A plugin appears, changes and goes by one rename, so a process that is killed leaves what was or
// what was to be; [Open] sweeps away the rest. What comes from outside is believed in nothing: a blob
// is counted and hashed while it is written, and no path of a layer leaves its directory.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Below the store's directory.
const (
	lockFile   = "lock"
	blobDir    = "blobs/sha256"
	ingestDir  = "ingest"
	tempDir    = "tmp"
	pluginDir  = "plugins"
	recordFile = "record.json"
	// propagatedDir is one of a plugin's own, and outlives upgrades.
	propagatedDir = "propagated-mount"
	rootfsDir     = "rootfs"
)

// Store is the managed plugins of one directory. Its methods may be called from any goroutine.
type Store struct {
	dir    string // absolute, without links
	root   *os.Root
	lock   *os.File
	log    *slog.Logger
	limits limits

	mu      sync.Mutex
	records map[string]Record
	// unknown are plugins whose record cannot be read. While there is one no blob is collected, for
	// it may be theirs.
	unknown []string
	holds   int
}

// Open opens the store in a directory, which it makes where there is none, and removes what a
// process left there that was killed. A record that cannot be read is said in the log, and its plugin
// is left alone. A store that is open already is ErrInUse.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s, err := open(dir, log)
	if err != nil {
		return nil, fmt.Errorf("managed plugins in %s: %w", dir, state.Classify(err))
	}
	return s, nil
}

func open(dir string, log *slog.Logger) (s *Store, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	// Files of plugins keep the set-user-ID bit: nobody else may reach them.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // as the table of mounts has it
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s = &Store{dir: dir, root: root, log: log, limits: defaultLimits, records: map[string]Record{}}
	defer func() {
		if err != nil {
			_ = s.Close() // the first error counts
		}
	}()
	if s.lock, err = root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return s, err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return s, errdefs.Errorf(errdefs.ErrInUse, "another process has them open")
		}
		return s, err
	}
	for _, d := range []string{blobDir, ingestDir, tempDir, pluginDir} {
		if err := root.MkdirAll(d, 0o700); err != nil {
			return s, err
		}
	}
	if err := s.load(); err != nil {
		return s, err
	}
	s.sweep()
	return s, nil
}

// Close lets another process open the store.
func (s *Store) Close() error {
	var err error
	if s.lock != nil {
		err = s.lock.Close()
	}
	return errors.Join(err, s.root.Close())
}

// load reads the records.
func (s *Store) load() error {
	entries, err := fs.ReadDir(s.root.FS(), pluginDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id := e.Name()
		r, err := s.read(id)
		if err != nil {
			s.unknown = append(s.unknown, id)
			s.log.Warn("managed plugin: its record cannot be read; it and all blobs are left alone",
				"path", s.path(pluginDir, id), "error", err)
			continue
		}
		s.records[id] = r
	}
	return nil
}

func (s *Store) read(id string) (Record, error) {
	var r Record
	if !fullID.MatchString(id) {
		return r, errdefs.Errorf(errdefs.ErrInvalid, "%q is no ID of a plugin", id)
	}
	if err := state.Read(s.root, recordPath(id), version, &r); err != nil {
		return r, err
	}
	if r.Plugin.ID != id || !strings.HasPrefix(r.Rootfs, rootfsDir) || !filepath.IsLocal(r.Rootfs) {
		return r, fmt.Errorf("%w: it is not that of this plugin", state.ErrCorrupt)
	}
	return r, nil
}

// sweep removes what is of no plugin. What it cannot remove costs space, and no more.
func (s *Store) sweep() {
	var errs []error
	for _, dir := range []string{ingestDir, tempDir} {
		entries, err := fs.ReadDir(s.root.FS(), dir)
		errs = append(errs, err)
		for _, e := range entries {
			errs = append(errs, s.removeTree(dir+"/"+e.Name()))
		}
	}
	for id, r := range s.records {
		errs = append(errs, state.Clean(s.root, pluginDir+"/"+id), s.sweepRootfs(id, r.Rootfs))
	}
	errs = append(errs, s.collect())
	for _, err := range errs {
		if err != nil {
			s.log.Warn("managed plugins: something of no use is left", "path", s.dir, "error", err)
		}
	}
}

// sweepRootfs removes the file systems of a plugin that an upgrade left, or did not come to use.
func (s *Store) sweepRootfs(id, keep string) error {
	dir := pluginDir + "/" + id
	entries, err := fs.ReadDir(s.root.FS(), dir)
	errs := []error{err}
	for _, e := range entries {
		if name := e.Name(); name != keep && strings.HasPrefix(name, rootfsDir) {
			errs = append(errs, s.removeTree(dir+"/"+name))
		}
	}
	return errdefs.Join(errs...)
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}
