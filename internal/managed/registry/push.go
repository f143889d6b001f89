package registry

import (
	"bytes"
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/store"
)

// Pushed is what a push left in the registry.
type Pushed struct {
	Tag    string
	Digest digest.Digest
	Size   int64
}

// Push sends a plugin to a registry, under the tag of ref, with docker's media types. Blobs that the
// registry has are not sent again, and a second push sends nothing.
func (c *Client) Push(ctx context.Context, ref reference.Reference, from *store.Store, r store.Record, a Auth, told store.Progress) (Pushed, error) {
	told = told.Throttled()
	img, raw, err := from.Image(r)
	if err != nil {
		return Pushed{}, err
	}
	fail := func(err error) (Pushed, error) { return Pushed{}, explain(ctx, "error pushing plugin", ref, err) }
	repo, err := c.repository(ctx, ref, a)
	if err != nil {
		return fail(err)
	}
	ctx = scope(ctx, ref, "pull,push")
	told("", "The push refers to repository ["+ref.Repository()+"]", 0, 0)
	blobs := append(append([]ocispec.Descriptor{}, img.Layers...), img.Config)
	for _, b := range append(blobs, img.Manifest) {
		told(store.ShortID(b.Digest), "Preparing", 0, 0)
	}
	for _, b := range blobs {
		if err := c.upload(ctx, repo, from, b, told); err != nil {
			return fail(err)
		}
		told(store.ShortID(b.Digest), "Upload complete", 0, 0)
	}
	if err := c.tag(ctx, repo, ref.Tag(), img.Manifest, raw); err != nil {
		return fail(err)
	}
	told(store.ShortID(img.Manifest.Digest), "Upload complete", 0, 0)
	return Pushed{ref.Tag(), img.Manifest.Digest, img.Manifest.Size}, nil
}

// upload sends a blob that the registry does not have.
func (c *Client) upload(ctx context.Context, repo *remote.Repository, from *store.Store, b ocispec.Descriptor, told store.Progress) error {
	ctx, watch := c.watch(ctx)
	defer watch.stop()
	there, err := repo.Blobs().Exists(ctx, b)
	if err != nil || there {
		return trim(ctx, err)
	}
	f, size, err := from.Blob(b.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	b.Size = size
	id := store.ShortID(b.Digest)
	body := &watched{r: f, w: watch, end: watch.sent, told: func(n int64) { told(id, "Uploading", n, size) }}
	return trim(ctx, repo.Blobs().Push(ctx, b, body))
}

// tag sends the manifest, unless it is there under the tag.
func (c *Client) tag(ctx context.Context, repo *remote.Repository, tag string, m ocispec.Descriptor, raw []byte) error {
	ctx, watch := c.watch(ctx)
	defer watch.stop()
	there, err := repo.Manifests().Resolve(ctx, tag)
	switch {
	case err == nil && there.Digest == m.Digest:
		return nil
	case err != nil && !errors.Is(err, errdef.ErrNotFound):
		return trim(ctx, err)
	}
	return trim(ctx, repo.Manifests().PushReference(ctx, m, bytes.NewReader(raw), tag))
}
