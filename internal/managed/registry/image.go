package registry

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// mediaTypeContainer is docker's word for the config of an image.
const mediaTypeContainer = "application/vnd.docker.container.image.v1+json"

// maxConfig bounds the config of an image, which has all its history.
const maxConfig = store.MaxManifest

// PulledImage is what a pull of an image found.
type PulledImage struct {
	Layers []ocispec.Descriptor
	Config ocispec.ImageConfig
	// Digest is what the reference stands for in the registry.
	Digest digest.Digest
}

// PullImage brings the layers of an image that is no plugin to the store, for [store.Store.Unpack]. The caller has a
// [store.Store.Hold] until it has unpacked them; nothing else keeps them. A reference with a digest is of that digest or
// fails, whatever the registry says.
func (c *Client) PullImage(ctx context.Context, ref reference.Reference, to *store.Store, how Pull) (PulledImage, error) {
	told := how.Progress.Throttled()
	repo, img, p, err := c.lookImage(ctx, ref, how.Auth)
	if err != nil {
		return PulledImage{}, explain(ctx, "error resolving image reference", ref, err)
	}
	told(ref.Tag(), "Pulling from "+ref.Repository(), 0, 0)
	told("", "Digest: "+p.Digest.String(), 0, 0)
	for _, l := range img.Layers {
		if err := c.layer(ctx, repo, to, l, told); err != nil {
			return PulledImage{}, explain(ctx, "error pulling image", ref, err)
		}
	}
	return p, nil
}

func (c *Client) lookImage(ctx context.Context, ref reference.Reference, a Auth) (*remote.Repository, store.Image, PulledImage, error) {
	fail := func(err error) (*remote.Repository, store.Image, PulledImage, error) {
		return nil, store.Image{}, PulledImage{}, err
	}
	repo, found, err := c.find(ctx, ref, a)
	if err != nil {
		return fail(err)
	}
	if want := ref.Digest(); want != "" && want != found.digest {
		return fail(errdefs.Errorf(errdefs.ErrDenied, "its digest is %s", found.digest))
	}
	img, err := parseManifest(found.desc, found.raw)
	if err != nil {
		return fail(err)
	}
	switch img.Config.MediaType {
	case ocispec.MediaTypeImageConfig, mediaTypeContainer:
	case store.MediaTypeConfig:
		return fail(errdefs.Errorf(errdefs.ErrInvalid, "it is a plugin, and not an image"))
	default:
		return fail(errdefs.Errorf(errdefs.ErrInvalid, "it is no image: its config is of the type %q", img.Config.MediaType))
	}
	raw, err := c.read(ctx, img.Config, maxConfig, repo.Blobs().Fetch)
	if err != nil {
		return fail(err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return fail(errdefs.Errorf(errdefs.ErrInvalid, "its config cannot be read: %w", err))
	}
	return repo, img, PulledImage{Layers: img.Layers, Config: config.Config, Digest: found.digest}, nil
}
