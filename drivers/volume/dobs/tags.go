package dobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// written are the tags of a volume as we wrote them. For a while nobody else is expected to
// change them, and we need not ask for them.
type written struct {
	tags []string
	at   time.Time
}

const writtenFor = time.Minute

func (p *provider) wrote(id string, tags []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, w := range p.written {
		if time.Since(w.at) > writtenFor {
			delete(p.written, id)
		}
	}
	p.written[id] = written{tags, time.Now()}
}

func (p *provider) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.written, id)
}

// difference returns all tags of a volume, and which have to come and go. That there is nothing to
// do is not taken from memory.
func (p *provider) difference(ctx context.Context, id string, tags block.Tags) (now, add, remove []string, err error) {
	p.mu.Lock()
	w, ok := p.written[id]
	p.mu.Unlock()
	if ok && time.Since(w.at) < writtenFor {
		if add, remove := change(w.tags, tags); len(add)+len(remove) > 0 {
			return w.tags, add, remove, nil
		}
	}
	v, err := p.get(ctx, id)
	if err != nil {
		return nil, nil, nil, err
	}
	add, remove = change(v.Tags, tags)
	return v.Tags, add, remove, nil
}

// SetTags changes tags of a volume. Each that changes is two or three requests.
func (p *provider) SetTags(ctx context.Context, d block.Disk, tags block.Tags) error {
	now, add, remove, err := p.difference(ctx, d.ID, tags)
	if err != nil {
		return err
	}
	p.forget(d.ID) // until it is known how it went
	for _, tag := range add {
		if err := p.tag(ctx, d.ID, tag); err != nil {
			return err
		}
		now = append(slices.Clone(now), tag)
	}
	for _, tag := range remove {
		err := tell(ctx, p, "tags.untag", func(ctx context.Context) (*godo.Response, error) {
			return p.do.Tags.UntagResources(ctx, tag, &godo.UntagResourcesRequest{Resources: resource(d.ID)})
		})
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) { // the tag is gone altogether
			return err
		}
		now = slices.DeleteFunc(slices.Clone(now), func(t string) bool { return t == tag })
	}
	p.wrote(d.ID, now)
	return nil
}

func resource(id string) []godo.Resource {
	return []godo.Resource{{ID: id, Type: godo.VolumeResourceType}}
}

// tag gives a volume a tag, which the account may not have yet.
func (p *provider) tag(ctx context.Context, id, tag string) error {
	give := func() error {
		return tell(ctx, p, "tags.tag", func(ctx context.Context) (*godo.Response, error) {
			return p.do.Tags.TagResources(ctx, tag, &godo.TagResourcesRequest{Resources: resource(id)})
		})
	}
	if p.hasTag(tag) {
		if err := give(); !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	_, _, err := ask(ctx, p, "tags.create", func(ctx context.Context) (*godo.Tag, *godo.Response, error) {
		return p.do.Tags.Create(ctx, &godo.TagCreateRequest{Name: tag})
	})
	if err != nil && statusOf(err) != 409 && statusOf(err) != 422 { // somebody else has made it
		return err
	}
	p.seen(tag)
	return give()
}

func (p *provider) hasTag(tag string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tags[strings.ToLower(tag)]
}

// seen takes a note of tags that the account has.
func (p *provider) seen(tags ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, tag := range tags {
		if strings.HasPrefix(strings.ToLower(tag), prefix) {
			p.tags[strings.ToLower(tag)] = true
		}
	}
}
