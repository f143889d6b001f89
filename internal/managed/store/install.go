package store

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/moby/moby/api/types/plugin"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Install makes a plugin of an image whose blobs are in the store. from is the reference that it came
// from. change, which may be nil, sees the record before the plugin is there, to set what the user
// gave; where it fails there is no plugin. The plugin is not enabled.
func (s *Store) Install(ctx context.Context, name, from string, img Image, change func(*Record) error, told Progress) (Record, error) {
	if err := s.Free(name); err != nil {
		return Record{}, err
	}
	config, err := s.config(img)
	if err != nil {
		return Record{}, fmt.Errorf("plugin %s: %w", name, err)
	}
	st, err := s.stage()
	if err != nil {
		return Record{}, fmt.Errorf("plugin %s: %w", name, err)
	}
	defer st.abort()
	err = s.unpack(ctx, img.Layers, st.name+"/"+rootfsDir, told)
	if err != nil {
		return Record{}, fmt.Errorf("plugin %s: %w", name, err)
	}
	return st.publish(name, from, config, img, change)
}

// Upgrade replaces the image of a plugin that is disabled. ID, name and what is in the propagated mount
// stay; what was set stays as far as the new version has it ([settings.Upgrade]). Whenever the
// process is killed, the plugin is of one version alone.
func (s *Store) Upgrade(ctx context.Context, id, from string, img Image, change func(*Record) error, told Progress) (Record, error) {
	old, err := s.Get(id)
	if err != nil {
		return Record{}, err
	}
	fail := func(err error) (Record, error) {
		return Record{}, fmt.Errorf("plugin %s: %w", old.Plugin.Name, err)
	}
	next, err := s.config(img)
	if err != nil {
		return fail(err)
	}
	was := old.Plugin.Config // where its blob is lost
	if c, err := s.config(Image{Config: ocispec.Descriptor{Digest: old.ConfigDigest}}); err == nil {
		was = c
	}
	st, err := s.stage()
	if err != nil {
		return fail(err)
	}
	defer st.abort()
	if err := s.unpack(ctx, img.Layers, st.name+"/"+rootfsDir, told); err != nil {
		return fail(err)
	}
	if err := s.syncfs(); err != nil {
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[id]
	switch {
	case !ok:
		return Record{}, errdefs.Errorf(errdefs.ErrNotFound, "plugin %q not found", id)
	case r.Plugin.Enabled:
		return Record{}, errdefs.Errorf(errdefs.ErrInUse, "plugin must be disabled before upgrading: plugin %s is enabled", r.Plugin.Name)
	}
	r = r.clone()
	r.Plugin.Config, r.Plugin.Settings = settings.Upgrade(was, r.Plugin.Settings, next)
	r.Plugin.PluginReference = from
	r.ConfigDigest, r.Manifest, r.Layers = img.Config.Digest, img.Manifest.Digest, bare(img.Layers)
	r.Rootfs = rootfsDir + "-" + rand.Text()
	if change != nil {
		if err := change(&r); err != nil {
			return Record{}, err
		}
	}
	dir := pluginDir + "/" + id
	if err := s.root.Rename(st.name+"/"+rootfsDir, dir+"/"+r.Rootfs); err != nil {
		return fail(state.Classify(err))
	}
	err = s.propagated(dir, r)
	if err == nil {
		err = s.save(r)
	}
	if err != nil {
		_ = s.removeTree(dir + "/" + r.Rootfs) // else the next Open does
		return fail(err)
	}
	if err := s.sweepRootfs(id, r.Rootfs); err != nil {
		s.log.WarnContext(ctx, "managed plugin: its old version is left until the next start", "plugin", r.Plugin.Name, "error", err)
	}
	s.tidy()
	return r.clone(), nil
}

// config reads the config of an image.
func (s *Store) config(img Image) (plugin.Config, error) {
	raw, err := s.ReadBlob(img.Config.Digest, settings.MaxSize)
	if err != nil {
		return plugin.Config{}, err
	}
	return settings.Parse(raw)
}

// staged is a plugin in the making.
type staged struct {
	s    *Store
	name string
}

// stage makes a directory that becomes that of a plugin.
func (s *Store) stage() (*staged, error) {
	st := &staged{s, tempDir + "/" + rand.Text()}
	for _, dir := range []string{st.name, st.name + "/" + rootfsDir} {
		mode := os.FileMode(0o755) // the root of a plugin that does not say what it is
		if dir == st.name {
			mode = 0o700
		}
		if err := s.root.Mkdir(dir, mode); err != nil {
			return nil, state.Classify(err)
		}
	}
	return st, nil
}

func (st *staged) abort() { _ = st.s.root.RemoveAll(st.name) } // nothing is there once it is published

// publish makes the plugin be there, by one rename.
func (st *staged) publish(name, from string, c plugin.Config, img Image, change func(*Record) error) (Record, error) {
	s := st.s
	id := make([]byte, 32)
	_, _ = rand.Read(id) // never fails
	r := Record{
		Plugin:       plugin.Plugin{ID: hex.EncodeToString(id), Name: name, PluginReference: from, Config: c, Settings: settings.Defaults(c)},
		ConfigDigest: img.Config.Digest, Manifest: img.Manifest.Digest, Layers: bare(img.Layers), Rootfs: rootfsDir,
	}
	if change != nil {
		if err := change(&r); err != nil {
			return Record{}, err
		}
	}
	fail := func(err error) (Record, error) {
		return Record{}, state.Classify(fmt.Errorf("plugin %s: %w", name, err))
	}
	if err := fits(r); err != nil {
		return Record{}, err
	}
	if err := s.propagated(st.name, r); err != nil {
		return fail(err)
	}
	if err := state.Create(s.root, st.name+"/"+recordFile, version, r); err != nil {
		return fail(err)
	}
	if err := s.syncfs(); err != nil {
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.free(name, ""); err != nil {
		return Record{}, err
	}
	if err := s.root.Rename(st.name, pluginDir+"/"+r.Plugin.ID); err != nil {
		return fail(err)
	}
	s.records[r.Plugin.ID] = r.clone()
	if err := state.SyncDir(s.root, pluginDir); err != nil {
		return fail(err)
	}
	return r, nil
}

// propagated makes the directory of a propagated mount, where there is to be one.
func (s *Store) propagated(dir string, r Record) error {
	if r.Plugin.Config.PropagatedMount == "" {
		return nil
	}
	return state.Classify(s.root.MkdirAll(dir+"/"+propagatedDir, 0o755))
}

// bare drops what a record has no use for, such as annotations, of which there may be any amount.
func bare(layers []ocispec.Descriptor) []ocispec.Descriptor {
	out := make([]ocispec.Descriptor, 0, len(layers))
	for _, l := range layers {
		out = append(out, ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	return out
}

// syncfs brings to the disk what was unpacked, at once and not file by file.
func (s *Store) syncfs() error {
	if err := unix.Syncfs(int(s.lock.Fd())); err != nil {
		return state.Classify(fmt.Errorf("sync: %w", err))
	}
	return nil
}

// Unpack unpacks layers, whose blobs are in the store, into a directory of the caller's, which must
// be there and be seen by nobody who could change it meanwhile. [Store.Install] is what makes a plugin.
func (s *Store) Unpack(ctx context.Context, layers []ocispec.Descriptor, dir string, told Progress) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return s.unpackInto(ctx, layers, root, told)
}

func (s *Store) unpack(ctx context.Context, layers []ocispec.Descriptor, dir string, told Progress) error {
	root, err := s.root.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return s.unpackInto(ctx, layers, root, told)
}

func (s *Store) unpackInto(ctx context.Context, layers []ocispec.Descriptor, root *os.Root, told Progress) error {
	told = told.Throttled()
	x := newExtractor(root, &budget{limits: s.limits})
	for _, l := range layers {
		if err := s.unpackLayer(ctx, x, l.Digest, told); err != nil {
			x.leave()
			return fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}
	return x.close()
}

func (s *Store) unpackLayer(ctx context.Context, x *extractor, d digest.Digest, told Progress) error {
	f, size, err := s.Blob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	in := &counted{r: until(ctx, f), told: func(n int64) { told(ShortID(d), "Extracting", n, size) }}
	hash := digest.SHA256.Hash()
	raw := io.TeeReader(in, hash)
	data, err := decompressed(raw, in, x.lim)
	if err == nil {
		err = x.layer(data)
	}
	if err == nil { // what is behind the archive, such as the checksum
		_, err = io.Copy(io.Discard, data)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, raw)
	}
	if err != nil {
		// What the disk damaged is fetched again; what is wrong by itself would only come back.
		if again := s.verify(ctx, d); again != nil {
			return again
		}
		return damaged(err)
	}
	if digest.NewDigest(digest.SHA256, hash) != d {
		return s.damaged(d)
	}
	told(ShortID(d), "Complete", 0, 0)
	return nil
}

// decompressed returns the tar in a stream that may be compressed by gzip.
func decompressed(raw io.Reader, in *counted, lim *budget) (io.Reader, error) {
	b := bufio.NewReaderSize(raw, 64<<10)                             // what is read ahead counts as used
	if head, _ := b.Peek(2); !bytes.Equal(head, []byte{0x1f, 0x8b}) { // an error comes again
		return &inflated{r: b, in: in, lim: lim}, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, err
	}
	return &inflated{r: z, in: in, lim: lim}, nil
}
