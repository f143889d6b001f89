package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/moby/moby/api/types/plugin"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// configFile is the config of a plugin that is created.
const configFile = "config.json"

// Create makes a plugin of a tar, plain or compressed by gzip, that has a config.json and a
// directory rootfs, in any order. The rootfs becomes one layer with the bytes, and so the digest,
// that the engine gives it. name is as [reference.Reference.Name] has it.
func (s *Store) Create(ctx context.Context, name string, from io.Reader) (Record, error) {
	defer s.Hold()()
	if err := s.Free(name); err != nil {
		return Record{}, err
	}
	st, err := s.stage()
	if err != nil {
		return Record{}, fmt.Errorf("plugin %s: %w", name, err)
	}
	defer st.abort()
	layer, rawConfig, err := s.split(ctx, from, st.name+"/"+rootfsDir)
	if err != nil {
		return Record{}, err
	}
	config, err := settings.Parse(rawConfig)
	if err != nil {
		return Record{}, err
	}
	img, err := s.addImage(ctx, config, layer)
	if err != nil {
		return Record{}, err
	}
	if config, err = s.config(img); err != nil { // as everybody will read it
		return Record{}, err
	}
	return st.publish(name, name, config, img, nil)
}

// addImage adds config and manifest of a plugin with one layer. A config's digest is that of the
// engine from version 29 on; older ones write their own version in it.
func (s *Store) addImage(ctx context.Context, c plugin.Config, layer ocispec.Descriptor) (Image, error) {
	c.Rootfs = &plugin.RootFS{Type: "layers", DiffIds: []string{layer.Digest.String()}}
	var raw bytes.Buffer
	if err := json.NewEncoder(&raw).Encode(c); err != nil {
		return Image{}, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("error encoding json config: %w", err))
	}
	img := Image{Config: describe(MediaTypeConfig, raw.Bytes()), Layers: []ocispec.Descriptor{layer}}
	if err := s.Add(ctx, &raw, img.Config); err != nil {
		return Image{}, err
	}
	m, err := BuildManifest(img.Config, img.Layers)
	if err != nil {
		return Image{}, err
	}
	img.Manifest = describe(MediaTypeManifest, m)
	return img, s.Add(ctx, bytes.NewReader(m), img.Manifest)
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// split unpacks the rootfs of a tar into a directory while it becomes a layer, and returns that and
// the config.
func (s *Store) split(ctx context.Context, from io.Reader, dir string) (ocispec.Descriptor, []byte, error) {
	none := ocispec.Descriptor{}
	root, err := s.root.OpenRoot(dir)
	if err != nil {
		return none, nil, err
	}
	defer root.Close()
	blob, err := s.newBlob()
	if err != nil {
		return none, nil, err
	}
	defer blob.abort()
	zip := gzip.NewWriter(blob)
	lim := &budget{limits: s.limits}
	in := &counted{r: until(ctx, from)}
	data, err := decompressed(in, in, lim)
	if err != nil {
		return none, nil, damaged(err)
	}
	pr, pw := io.Pipe()
	sp := &splitter{lim: budget{limits: s.limits}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(sp.run(data, pw)) // which is io.EOF for nil
	}()
	x := newExtractor(root, lim)
	layer := io.TeeReader(pr, zip)
	err = x.layer(layer)
	if err == nil {
		_, err = io.Copy(io.Discard, layer)
	}
	pr.CloseWithError(err) // else the other side would wait for a reader
	<-done
	switch {
	case sp.err != nil && !errors.Is(sp.err, io.ErrClosedPipe):
		x.leave()
		return none, nil, sp.err
	case err != nil:
		x.leave()
		return none, nil, err
	case sp.config == nil:
		x.leave()
		return none, nil, errdefs.Errorf(errdefs.ErrInvalid, "config not found")
	}
	if err := x.close(); err != nil {
		return none, nil, err
	}
	if err := zip.Close(); err != nil {
		return none, nil, err
	}
	d, err := blob.commit()
	return ocispec.Descriptor{MediaType: MediaTypeLayerGzip, Digest: d, Size: blob.size}, sp.config, err
}

// splitter takes a tar of config.json and rootfs apart.
type splitter struct {
	lim    budget
	config []byte
	err    error
}

func (sp *splitter) run(from io.Reader, to io.Writer) error {
	sp.err = sp.copy(tar.NewReader(from), tar.NewWriter(to))
	return sp.err
}

// copy writes the headers as the engine does, by which digests are the same.
func (sp *splitter) copy(from *tar.Reader, to *tar.Writer) error {
	rootfs := false
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			if !rootfs {
				return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("no rootfs found: %w", err))
			}
			return to.Close()
		}
		if err != nil {
			return damaged(err)
		}
		if err := errors.Join(sp.lim.entry(), sp.lim.file(h.Size)); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		if name == configFile {
			if sp.config, err = readConfig(h, from); err != nil {
				return err
			}
			continue
		}
		below, ok := strings.CutPrefix(name+"/", rootfsDir+"/")
		if !ok {
			continue
		}
		rootfs = true
		h.Name = path.Clean(strings.TrimSuffix(below, "/"))
		if h.Typeflag == tar.TypeGNUSparse {
			h.Typeflag = tar.TypeReg // it is read with its holes filled
		}
		target := strings.TrimPrefix(strings.TrimPrefix(h.Linkname, "."), "/") // as tar(1) has it of "."
		if h.Typeflag == tar.TypeLink && len(target) > len(rootfsDir) && strings.EqualFold(target[:len(rootfsDir)+1], rootfsDir+"/") {
			h.Linkname = target[len(rootfsDir)+1:]
		}
		if err := to.WriteHeader(h); err != nil {
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("%q: error writing tar header: %w", h.Name, err))
		}
		if _, err := io.Copy(to, from); err != nil {
			return copied(err)
		}
	}
}

// copied says what is wrong with the bytes of a file, if it is they.
func copied(err error) error {
	if errors.Is(err, io.ErrClosedPipe) || errdefs.Class(err) != nil {
		return err
	}
	return damaged(err)
}

func readConfig(h *tar.Header, from io.Reader) ([]byte, error) {
	if h.Size > settings.MaxSize {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "failed to read config.json: it is larger than %d KiB", settings.MaxSize>>10)
	}
	raw, err := io.ReadAll(from)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("failed to read config.json: %w", err))
	}
	if raw == nil {
		raw = []byte{}
	}
	return raw, nil
}
