package store

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/moby/sys/mountinfo"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Hold keeps all blobs until release is called, which removes those that are of no plugin when it is
// the last. Whoever pulls holds from before the first blob is fetched until the plugin is
// there, or has failed: what failed leaves nothing.
func (s *Store) Hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holds--
		s.tidy()
	})
}

// tidy collects, or leaves it to the last hold.
func (s *Store) tidy() {
	if s.holds > 0 {
		return
	}
	if err := s.collect(); err != nil {
		s.log.Warn("managed plugins: blobs of no use are left", "path", s.dir, "error", err)
	}
}

// GC removes the blobs that are of no plugin; while there is a [Store.Hold], its release does.
// Unlike the engine's it keeps what a push needs: the manifest, and the layers of plugins that were
// pulled.
func (s *Store) GC() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds > 0 {
		return nil
	}
	return s.collect()
}

func (s *Store) collect() error {
	if len(s.unknown) > 0 {
		return nil
	}
	used := map[string]bool{}
	for _, r := range s.records {
		for _, d := range r.blobs() {
			if d != "" {
				used[d.Encoded()] = true
			}
		}
	}
	entries, err := fs.ReadDir(s.root.FS(), blobDir)
	errs := []error{err}
	for _, e := range entries {
		if !used[e.Name()] {
			errs = append(errs, s.root.RemoveAll(blobDir+"/"+e.Name()))
		}
	}
	return state.Classify(errors.Join(errs...))
}

// Remove removes a plugin with all that it has. It is gone, for good, when it returns nil, and as it
// was when it fails. Where something is mounted below its directory it is ErrInUse: an engine that
// looked less closely has removed files of the host through such mounts.
func (s *Store) Remove(id string) error {
	defer s.Hold()() // what it had is collected when it is gone
	name, at, err := s.takeAway(id)
	if err != nil {
		return err
	}
	if err := s.removeTree(at); err != nil {
		s.log.Warn("managed plugin: it is removed, but something of it is left until the next start", "plugin", name, "error", err)
	}
	return nil
}

// takeAway moves a plugin to where it is none.
func (s *Store) takeAway(id string) (name, at string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[id]
	if !ok {
		return "", "", errdefs.Errorf(errdefs.ErrNotFound, "plugin %q not found", id)
	}
	from, to := pluginDir+"/"+id, tempDir+"/"+id+"-removing"
	err = s.unmounted(from)
	if err == nil {
		err = s.root.Rename(from, to)
	}
	if err == nil {
		delete(s.records, id)
		err = state.SyncDir(s.root, pluginDir)
	}
	if err != nil {
		return "", "", state.Classify(fmt.Errorf("plugin %s: %w", r.Plugin.Name, err))
	}
	return r.Plugin.Name, to, nil
}

// removeTree removes a file or directory where nothing is mounted below.
func (s *Store) removeTree(name string) error {
	if err := s.unmounted(name); err != nil {
		return err
	}
	return s.root.RemoveAll(name)
}

func (s *Store) unmounted(name string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(s.path(name)))
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "something is mounted on %s", mounts[0].Mountpoint),
			"umount --recursive "+mounts[0].Mountpoint)
	}
	return nil
}
