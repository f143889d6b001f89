package store

import (
	"encoding/json"
	"errors"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// The media types of a plugin in a registry. Registries have long refused the config of a plugin
// under a manifest of OCI, so it is docker's that are pushed.
const (
	MediaTypeManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeConfig    = "application/vnd.docker.plugin.v1+json"
	MediaTypeLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// MaxManifest is the size in bytes over which a manifest is refused, as registries do.
const MaxManifest = 4 << 20

// Image is a plugin as it is in a registry. Its blobs are in the store.
type Image struct {
	Manifest ocispec.Descriptor
	Config   ocispec.Descriptor
	Layers   []ocispec.Descriptor
}

// manifest has the fields in the order in which the engine writes them.
type manifest struct {
	specs.Versioned
	Config    ocispec.Descriptor   `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	MediaType string               `json:"mediaType"`
}

// BuildManifest returns the manifest of a plugin, byte for byte as the engine makes it.
func BuildManifest(config ocispec.Descriptor, layers []ocispec.Descriptor) ([]byte, error) {
	m := manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: MediaTypeManifest}
	m.Config = ocispec.Descriptor{MediaType: MediaTypeConfig, Digest: config.Digest, Size: config.Size}
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: dockerLayer(l.MediaType), Digest: l.Digest, Size: l.Size})
	}
	return json.Marshal(m)
}

// LayerType says whether a media type is that of a layer that can be unpacked.
func LayerType(mediaType string) bool {
	switch mediaType {
	case MediaTypeLayer, MediaTypeLayerGzip, ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip:
		return true
	}
	return false
}

func dockerLayer(mediaType string) string {
	if mediaType == MediaTypeLayer || mediaType == ocispec.MediaTypeImageLayer {
		return MediaTypeLayer
	}
	return MediaTypeLayerGzip
}

// Image returns what of a plugin a push sends, with the bytes of its manifest. A plugin that came
// with a manifest of docker's keeps it, and so its digest; for one that came with another a manifest is
// made.
func (s *Store) Image(r Record) (Image, []byte, error) {
	config, size, err := s.Blob(r.ConfigDigest)
	if err != nil {
		return Image{}, nil, err
	}
	_ = config.Close() // only its size is wanted
	img := Image{
		Config: ocispec.Descriptor{MediaType: MediaTypeConfig, Digest: r.ConfigDigest, Size: size},
		Layers: r.Layers,
	}
	raw, err := s.pushed(r)
	if err == nil && raw == nil {
		raw, err = BuildManifest(img.Config, img.Layers)
	}
	if err != nil {
		return Image{}, nil, err
	}
	img.Manifest = ocispec.Descriptor{MediaType: MediaTypeManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return img, raw, nil
}

// pushed returns the manifest that the plugin came with, where it is one to push.
func (s *Store) pushed(r Record) ([]byte, error) {
	if r.Manifest == "" {
		return nil, nil
	}
	raw, err := s.ReadBlob(r.Manifest, MaxManifest)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil || m.MediaType != MediaTypeManifest {
		return nil, nil //nolint:nilerr // whatever it is, it is not pushed
	}
	return raw, nil
}
