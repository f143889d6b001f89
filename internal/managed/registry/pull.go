package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"strings"

	"github.com/moby/moby/api/types/plugin"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/internal/managed/settings"
	"github.com/remora-plugins/remora/internal/managed/store"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What an image may have. A plugin that the engine made has one layer.
const (
	maxLayers = 128
	maxLayer  = 4 << 30
	maxNested = 3 // indexes in indexes
)

// Pull is how a plugin is pulled.
type Pull struct {
	// Auth is who pulls; the zero value is nobody.
	Auth Auth
	// Pin is the digest that the reference must have: that of the manifest, or of the index that
	// it is in. Empty is any.
	Pin digest.Digest
	// Grant is asked, before any layer is fetched, whether the plugin may have what it asks for; nil
	// grants nothing.
	Grant func(plugin.Privileges) error
	// Check, which may be nil, is asked next whether the plugin is what the caller can use.
	Check func(plugin.Config) error
	// Progress may be nil.
	Progress store.Progress
}

// Pulled is what a pull found.
type Pulled struct {
	Image  store.Image
	Config plugin.Config
	// Digest is what the reference stands for in the registry.
	Digest digest.Digest
}

// Privileges returns what the plugin of a reference asks for. Nothing but its manifest and config is
// fetched, and nothing is stored. An error is never an empty list, as it is with the engine.
func (c *Client) Privileges(ctx context.Context, ref reference.Reference, a Auth) (plugin.Privileges, error) {
	_, p, err := c.look(ctx, ref, a)
	if err != nil {
		return nil, explain(ctx, "error resolving plugin reference", ref, err)
	}
	return settings.Privileges(p.Config), nil
}

// Pull brings the blobs of a plugin to the store, those that are not there already. The caller has a
// [store.Store.Hold], and installs them before it lets go. Of an index it takes what is for this
// machine. The privileges are checked before any layer is fetched.
func (c *Client) Pull(ctx context.Context, ref reference.Reference, to *store.Store, how Pull) (Pulled, error) {
	told := how.Progress.Throttled()
	repo, p, err := c.look(ctx, ref, how.Auth)
	if err == nil && how.Pin != "" && how.Pin != p.Digest && how.Pin != p.Image.Manifest.Digest {
		err = errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "its digest is %s, and not the pinned %s", p.Digest, how.Pin),
			"somebody pushed another plugin under this name; look at it before you pin its digest")
	}
	if err != nil {
		return Pulled{}, explain(ctx, "error resolving plugin reference", ref, err)
	}
	told(ref.Tag(), "Pulling from "+ref.Repository(), 0, 0)
	told("", "Digest: "+p.Digest.String(), 0, 0)
	grant := how.Grant
	if grant == nil {
		grant = func(required plugin.Privileges) error { return settings.Granted(required, nil) }
	}
	if err := grant(settings.Privileges(p.Config)); err != nil {
		return Pulled{}, err
	}
	if how.Check != nil {
		if err := how.Check(p.Config); err != nil {
			return Pulled{}, err
		}
	}
	ctx = scope(ctx, ref, "pull")
	for _, l := range p.Image.Layers {
		if err := c.layer(ctx, repo, to, l, told); err != nil {
			return Pulled{}, explain(ctx, "error pulling plugin", ref, err)
		}
	}
	for _, small := range []ocispec.Descriptor{p.Image.Config, p.Image.Manifest} {
		if err := c.keep(ctx, repo, to, small); err != nil {
			return Pulled{}, explain(ctx, "error pulling plugin", ref, err)
		}
	}
	return p, nil
}

// look finds manifest and config of a plugin.
func (c *Client) look(ctx context.Context, ref reference.Reference, a Auth) (*remote.Repository, Pulled, error) {
	ctx = scope(ctx, ref, "pull")
	repo, found, err := c.find(ctx, ref, a)
	if err != nil {
		return nil, Pulled{}, err
	}
	p := Pulled{Digest: found.digest}
	if p.Image, err = parseManifest(found.desc, found.raw); err != nil {
		return nil, Pulled{}, err
	}
	if p.Image.Config.MediaType != store.MediaTypeConfig {
		return nil, Pulled{}, errdefs.Errorf(errdefs.ErrInvalid, "did not find plugin config for specified reference %s", ref)
	}
	raw, err := c.read(ctx, p.Image.Config, settings.MaxSize, repo.Blobs().Fetch)
	if err != nil {
		return nil, Pulled{}, err
	}
	p.Config, err = settings.Parse(raw)
	return repo, p, err
}

// found is the manifest of a reference that is for this machine.
type found struct {
	digest digest.Digest // what the reference stands for
	desc   ocispec.Descriptor
	raw    []byte
}

func (c *Client) find(ctx context.Context, ref reference.Reference, a Auth) (*remote.Repository, found, error) {
	repo, err := c.repository(ctx, ref, a)
	if err != nil {
		return nil, found{}, err
	}
	what := ref.Tag()
	if d := ref.Digest(); d != "" {
		what = d.String()
	}
	rctx, watch := c.watch(ctx)
	defer watch.stop()
	desc, err := repo.Manifests().Resolve(rctx, what)
	if err != nil {
		return nil, found{}, trim(rctx, err)
	}
	f := found{digest: desc.Digest}
	if f.desc, err = c.platform(ctx, repo, desc); err != nil {
		return nil, found{}, err
	}
	f.raw, err = c.read(ctx, f.desc, store.MaxManifest, repo.Manifests().Fetch)
	return repo, f, err
}

// platform follows indexes to the manifest that is for this machine.
func (c *Client) platform(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	for range maxNested {
		switch desc.MediaType {
		case store.MediaTypeManifest, ocispec.MediaTypeImageManifest:
			return desc, nil
		case mediaTypeList, ocispec.MediaTypeImageIndex:
		default:
			return desc, errdefs.Errorf(errdefs.ErrInvalid, "its media type %q is not that of a manifest", desc.MediaType)
		}
		raw, err := c.read(ctx, desc, store.MaxManifest, repo.Manifests().Fetch)
		if err != nil {
			return desc, err
		}
		var index ocispec.Index
		if err := json.Unmarshal(raw, &index); err != nil {
			return desc, errdefs.Errorf(errdefs.ErrInvalid, "its index cannot be read: %w", err)
		}
		if desc, err = choose(index.Manifests); err != nil {
			return desc, err
		}
	}
	return desc, errdefs.Errorf(errdefs.ErrInvalid, "its index leads to an index, more than %d times", maxNested-1)
}

// choose takes what is for this machine, or else what does not say for which it is.
func choose(all []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var any []ocispec.Descriptor
	var there []string
	for _, d := range all {
		switch p := d.Platform; {
		case p == nil || p.OS == "" && p.Architecture == "":
			any = append(any, d)
		case p.OS == "linux" && p.Architecture == runtime.GOARCH && (p.Variant == "" || p.Variant == variant[runtime.GOARCH]):
			return d, nil
		default:
			there = append(there, p.OS+"/"+p.Architecture)
		}
	}
	if len(any) == 0 {
		return ocispec.Descriptor{}, errdefs.Errorf(errdefs.ErrUnsupported, "there is none for linux/%s; there is %s", runtime.GOARCH, strings.Join(there, ", "))
	}
	return any[0], nil
}

// variant is what every machine of an architecture can run.
var variant = map[string]string{"arm64": "v8", "amd64": "v1"}

// parseManifest checks all that a manifest says before anything is fetched for it.
func parseManifest(desc ocispec.Descriptor, raw []byte) (store.Image, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return store.Image{}, errdefs.Errorf(errdefs.ErrInvalid, "error unmarshaling image manifest: %w", err)
	}
	if n := len(m.Layers); n == 0 || n > maxLayers {
		return store.Image{}, errdefs.Errorf(errdefs.ErrInvalid, "it has %d layers, and not from 1 to %d", n, maxLayers)
	}
	var total int64
	for _, l := range m.Layers {
		if !store.LayerType(l.MediaType) {
			return store.Image{}, errdefs.Errorf(errdefs.ErrUnsupported, "layer %s: its media type %q is not supported", l.Digest, l.MediaType)
		}
		if l.Size < 0 || l.Size > maxLayer-total {
			return store.Image{}, errdefs.Errorf(errdefs.ErrInvalid, "its layers are larger than %d MiB", maxLayer>>20)
		}
		total += l.Size
	}
	return store.Image{Manifest: desc, Config: m.Config, Layers: m.Layers}, nil
}

// layer fetches a layer that is not there.
func (c *Client) layer(ctx context.Context, repo *remote.Repository, to *store.Store, l ocispec.Descriptor, told store.Progress) error {
	if err := l.Digest.Validate(); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "digest %q: it is no sha256", l.Digest)
	}
	id := store.ShortID(l.Digest)
	if to.Has(l.Digest) {
		told(id, "Already exists", 0, 0)
		return nil
	}
	told(id, "Pulling fs layer", 0, 0)
	ctx, watch := c.watch(ctx)
	defer watch.stop()
	body, err := repo.Blobs().Fetch(ctx, l)
	if err != nil {
		return trim(ctx, err)
	}
	defer body.Close()
	r := &watched{r: &resumed{body: body, left: 3}, w: watch, told: func(n int64) { told(id, "Downloading", n, l.Size) }}
	if err := to.Add(ctx, r, l); err != nil {
		return trim(ctx, err)
	}
	told(id, "Download complete", l.Size, l.Size)
	return nil
}

// keep stores a manifest or config, which was read already.
func (c *Client) keep(ctx context.Context, repo *remote.Repository, to *store.Store, d ocispec.Descriptor) error {
	fetch := repo.Blobs().Fetch
	if d.MediaType != store.MediaTypeConfig {
		fetch = repo.Manifests().Fetch
	}
	raw, err := c.read(ctx, d, store.MaxManifest, fetch)
	if err != nil {
		return err
	}
	return to.Add(ctx, bytes.NewReader(raw), d)
}
