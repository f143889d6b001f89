package rbd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// What is written on an image, as its metadata. A clone inherits all of it: what does not have the
// UUID that is in the image's name is not believed.
const (
	metaTags = "remora:tags"      // the tags that the image was made with, as JSON
	metaTag  = "remora:tag."      // one that was changed since: "=VALUE", or "-" for none
	metaSnap = "remora:snapshot." // by the name of a snapshot: its tags, as JSON
)

// written is what [metaTags] and [metaSnap] hold.
type written struct {
	Made    time.Time  `json:"made"`
	Flatten bool       `json:"flatten,omitempty"`
	Was     string     `json:"was,omitempty"` // the name that the image had before it was taken in
	Tags    block.Tags `json:"tags"`
}

// ours begins the names of images and snapshots that are Remora's.
const ours = "remora."

// imageName is how an image is called: its volume can be looked for by the first part, and the
// second is its UUID.
func imageName(tags block.Tags) string {
	return ours + nameHash(tags[block.TagNamespace], tags[block.TagName]) + "." + tags[block.TagUUID]
}

func nameHash(namespace, name string) string {
	sum := sha256.Sum256([]byte(namespace + "\x00" + name))
	return hex.EncodeToString(sum[:5])
}

// uuidOf returns the UUID in the name of an image.
func uuidOf(image string) (string, bool) {
	rest, ok := strings.CutPrefix(image, ours)
	_, uuid, dotted := strings.Cut(rest, ".")
	return uuid, ok && dotted && len(uuid) == 36
}

// meta is the metadata of an image.
type meta map[string]string

// tags returns what is written on the image; none where it is not its own.
func (m meta) tags(image string) (written, bool) {
	var w written
	uuid, ok := uuidOf(image)
	if !ok || json.Unmarshal([]byte(m[metaTags]), &w) != nil || w.Tags[block.TagUUID] != uuid {
		return w, false
	}
	for key, value := range m {
		if key, ok := strings.CutPrefix(key, metaTag); ok {
			if v, set := strings.CutPrefix(value, "="); set {
				w.Tags[key] = v
			} else {
				delete(w.Tags, key)
			}
		}
	}
	return w, true
}

func (p *provider) meta(ctx context.Context, image string) (meta, error) {
	m, err := ask[meta](ctx, p.cluster, "image-meta", "list", p.spec(image))
	return m, err
}

func (p *provider) setMeta(ctx context.Context, image, key, value string) error {
	_, err := p.rbd(ctx, "image-meta", "set", p.spec(image), key, value)
	return err
}

// write writes the tags of a new image, and before that takes off those that it inherited.
func (p *provider) write(ctx context.Context, image string, w written) error {
	m, err := p.meta(ctx, image)
	if err != nil {
		return err
	}
	if _, own := m.tags(image); own { // of a try before this one
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(key, "remora:") && key != metaTags {
			if _, err := p.rbd(ctx, "image-meta", "remove", p.spec(image), key); err != nil && status(err) != enoent {
				return err
			}
		}
	}
	return p.writeNew(ctx, image, w)
}

func (p *provider) writeNew(ctx context.Context, image string, w written) error {
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return p.setMeta(ctx, image, metaTags, string(text))
}

// SetTags changes tags, each by itself, so that two hosts never undo what the other did. A volume
// that gets another name has its image renamed first: it is looked for by that.
func (p *provider) SetTags(ctx context.Context, d block.Disk, tags block.Tags) error {
	return p.do(ctx, "SetTags", func(ctx context.Context) error {
		image, err := p.imageOf(ctx, d)
		if err != nil {
			return err
		}
		if name, ok := tags[block.TagName]; ok && name != "" {
			to := ours + nameHash(p.c.Namespace, name) + "." + d.Tags[block.TagUUID]
			if to != image {
				if _, err := p.rbd(ctx, "rename", p.spec(image), p.spec(to)); err != nil {
					return p.missing(d.ID, err)
				}
				p.names.Store(d.ID, to)
				image = to
			}
		}
		for _, key := range slices.Sorted(maps.Keys(tags)) {
			value := "-"
			if tags[key] != "" {
				value = "=" + tags[key]
			}
			if err := p.setMeta(ctx, image, metaTag+key, value); err != nil {
				return p.missing(d.ID, err)
			}
		}
		return nil
	})
}

// missing forgets where an image was that is not there any more.
func (p *provider) missing(id string, err error) error {
	if status(err) == enoent {
		p.names.Delete(id)
		return errdefs.Errorf(errdefs.ErrNotFound, "image %s: not in pool %s any more", id, p.c.Pool)
	}
	return err
}
