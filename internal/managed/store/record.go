package store

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/plugin"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// version is that of the form of a record.
const version = 1

var fullID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Record is all that is known of one plugin. [Store] hands out copies: what is changed in one counts
// when it was saved.
type Record struct {
	// Plugin is what the engine's API shows. Enabled says what a user wants.
	Plugin plugin.Plugin `json:"plugin"`
	// ConfigDigest, Manifest and Layers are blobs. Manifest is empty where the plugin came from a
	// manifest that this store does not push, and layers are in the order in which they were
	// unpacked.
	ConfigDigest digest.Digest        `json:"config"`
	Manifest     digest.Digest        `json:"manifest,omitempty"`
	Layers       []ocispec.Descriptor `json:"layers"`
	// Secrets maps names of environment variables to files on this host that hold their values,
	// which so are in no record, setting or inspect.
	Secrets map[string]string `json:"secrets,omitempty"`
	// Pinned is the digest to which the user pinned the plugin, or empty.
	Pinned digest.Digest `json:"pinned,omitempty"`
	// Volumes are some of those that were the plugin's own when it was disabled, and would go with it.
	Volumes []string `json:"volumes,omitempty"`
	// Rootfs names a directory beside the record. [Store.Rootfs] has its path.
	Rootfs string `json:"rootfs"`
}

func (r Record) clone() Record {
	r.Plugin.Config, r.Plugin.Settings = settings.Clone(r.Plugin.Config, r.Plugin.Settings)
	r.Layers, r.Secrets, r.Volumes = slices.Clone(r.Layers), maps.Clone(r.Secrets), slices.Clone(r.Volumes)
	return r
}

func (r Record) blobs() []digest.Digest {
	all := []digest.Digest{r.ConfigDigest, r.Manifest}
	for _, l := range r.Layers {
		all = append(all, l.Digest)
	}
	return all
}

func recordPath(id string) string { return pluginDir + "/" + id + "/" + recordFile }

// Rootfs returns the path of a plugin's file system.
func (s *Store) Rootfs(r Record) string { return s.path(pluginDir, r.Plugin.ID, r.Rootfs) }

// PropagatedMount returns the path of the directory that a plugin with a propagated mount has at its
// place. What is in it stays over upgrades.
func (s *Store) PropagatedMount(r Record) string {
	return s.path(pluginDir, r.Plugin.ID, propagatedDir)
}

// Records returns all plugins, ordered by name.
func (s *Store) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Record, 0, len(s.records))
	for _, r := range s.records {
		all = append(all, r.clone())
	}
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Plugin.Name, b.Plugin.Name) })
	return all
}

// Get finds a plugin as the engine does: by its ID, by its name, to which the tag latest is added
// where it has none, or by the beginning of its ID, where that is of one plugin alone.
func (s *Store) Get(nameOrID string) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.find(nameOrID)
	if err != nil {
		return Record{}, err
	}
	return s.records[id].clone(), nil
}

func (s *Store) find(nameOrID string) (string, error) {
	notFound := errdefs.Errorf(errdefs.ErrNotFound, "plugin %q not found", nameOrID)
	if fullID.MatchString(nameOrID) {
		if _, ok := s.records[nameOrID]; !ok {
			return "", notFound
		}
		return nameOrID, nil
	}
	name, err := reference.ParseName(nameOrID)
	if err != nil {
		return "", notFound
	}
	var found []string
	for id, r := range s.records {
		if r.Plugin.Name == name.Name() {
			return id, nil
		}
		if strings.HasPrefix(id, nameOrID) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return "", notFound
	case 1:
		return found[0], nil
	}
	return "", errdefs.Errorf(errdefs.ErrInvalid, "multiple plugins found for %q", nameOrID)
}

// Free returns nil where no plugin has the name, and else an ErrExists.
func (s *Store) Free(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free(name, "")
}

func (s *Store) free(name, but string) error {
	for id, r := range s.records {
		if r.Plugin.Name == name && id != but {
			return errdefs.Errorf(errdefs.ErrExists, "plugin %s already exists", name)
		}
	}
	return nil
}

// Save replaces the record of a plugin that is there. When it returns nil the record is on the disk;
// when it fails the record is what it was. Blobs and file system change by [Store.Upgrade] alone, so
// what the record says of them is that of the store.
func (s *Store) Save(r Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.records[r.Plugin.ID]
	if !ok {
		return errdefs.Errorf(errdefs.ErrNotFound, "plugin %q not found", r.Plugin.ID)
	}
	r.ConfigDigest, r.Manifest, r.Layers, r.Rootfs = old.ConfigDigest, old.Manifest, old.Layers, old.Rootfs
	return s.save(r)
}

func (s *Store) save(r Record) error {
	r = r.clone()
	if err := s.free(r.Plugin.Name, r.Plugin.ID); err != nil {
		return err
	}
	if err := fits(r); err != nil {
		return err
	}
	if err := state.Write(s.root, recordPath(r.Plugin.ID), version, r); err != nil {
		return fmt.Errorf("plugin %s: %w", r.Plugin.Name, err)
	}
	s.records[r.Plugin.ID] = r
	return nil
}

// fits refuses a record that could not be read again.
func fits(r Record) error {
	data, err := state.Encode(version, r)
	if err != nil {
		return err
	}
	if len(data) > state.MaxSize {
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin %s: its config and settings are larger than %d KiB", r.Plugin.Name, state.MaxSize>>10)
	}
	return nil
}
