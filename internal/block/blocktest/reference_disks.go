package blocktest

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// refProvider is the cloud as one host sees it.
type refProvider struct {
	c    *Reference
	host string
}

type refRollbacker struct{ *refProvider }

const refUnit = 1 << 20

func (p *refProvider) Traits() block.Traits {
	return block.Traits{
		Kind: "reference", Scope: "region " + p.c.region, Region: p.c.region, Client: p.c.client, Options: []string{"type", "snapshot", "zone"},
		Unit: refUnit, MinSize: 16 << 20, MaxSize: 1 << 40, Outlive: true, Zonal: len(p.c.In) > 0,
	}
}

// ask is one request.
func ask[T any](ctx context.Context, p *refProvider, op string, f func() (T, error)) (v T, err error) {
	err = p.c.client.Do(ctx, op, func(ctx context.Context) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		v, err = f()
		return err
	})
	return v, err
}

func (p *refProvider) Self(context.Context) (block.Host, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return block.Host{ID: p.host, Zone: p.c.zones[p.host]}, nil
}

func (p *refProvider) List(ctx context.Context, q block.Query) ([]block.Disk, error) {
	if p.c.Page > 0 && q.All() {
		p.c.mu.Lock()
		more := (len(p.c.disks) - 1) / p.c.Page
		p.c.mu.Unlock()
		for range more {
			if _, err := ask(ctx, p, "List", func() (struct{}, error) { return struct{}{}, nil }); err != nil {
				return nil, err
			}
		}
	}
	return ask(ctx, p, "List", func() ([]block.Disk, error) {
		var all []block.Disk
		now := time.Now().Add(-p.c.Lag)
		for _, d := range p.c.disks {
			for _, v := range slices.Backward(d.history) {
				if v.at.After(now) {
					continue
				}
				if v.disk.Tags[block.TagNamespace] == q.Namespace && q.Takes(d.ID, v.disk.Tags[block.TagName]) {
					v.disk.Tags, v.disk.Holders = maps.Clone(v.disk.Tags), slices.Clone(v.disk.Holders)
					all = append(all, v.disk)
				}
				break
			}
		}
		return all, nil
	})
}

func (p *refProvider) Create(ctx context.Context, s block.Spec) (block.Disk, error) {
	return ask(ctx, p, "Create", func() (block.Disk, error) {
		for _, d := range p.c.disks {
			if d.Tags[block.TagUUID] == s.UUID {
				return d.Disk, nil
			}
		}
		if p.c.spent[s.UUID] {
			return block.Disk{}, errdefs.Errorf(errdefs.ErrExists, "the token was used for a disk that is deleted")
		}
		if s.Zone == "" {
			s.Zone = p.c.zones[p.host]
		}
		if len(p.c.In) > 0 && !slices.Contains(p.c.In, s.Zone) {
			return block.Disk{}, errdefs.Errorf(errdefs.ErrInvalid, "zone %q: %s has %s", s.Zone, p.c.region, strings.Join(p.c.In, ", "))
		}
		from := ""
		if s.Snapshot != nil {
			sn, ok := p.c.snaps[s.Snapshot.ID]
			if !ok {
				return block.Disk{}, errdefs.Errorf(errdefs.ErrInvalid, "snapshot %s: there is none", s.Snapshot.ID)
			}
			if s.Size == 0 {
				s.Size = sn.Size
			}
			if s.Size < sn.Size {
				return block.Disk{}, errdefs.Errorf(errdefs.ErrInvalid, "the disk is smaller than the snapshot")
			}
			from = sn.file
		}
		d, err := p.c.create(s, from)
		if err != nil {
			return block.Disk{}, err
		}
		p.c.changed(d)
		p.c.later(func() {
			d.State = block.Ready
			p.c.changed(d)
		})
		return d.Disk, nil
	})
}

func (p *refProvider) disk(id string) (*refDisk, error) {
	d, ok := p.c.disks[id]
	if !ok {
		return nil, errdefs.Errorf(errdefs.ErrNotFound, "disk %s: there is none", id)
	}
	return d, nil
}

func (p *refProvider) Delete(ctx context.Context, disk block.Disk) error {
	_, err := ask(ctx, p, "Delete", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if errors.Is(err, errdefs.ErrNotFound) {
			return struct{}{}, nil
		}
		if len(d.Holders) > 0 {
			return struct{}{}, errdefs.Errorf(errdefs.ErrInUse, "disk %s is attached", d.ID)
		}
		delete(p.c.disks, d.ID)
		p.c.spent[d.Tags[block.TagUUID]] = true
		return struct{}{}, os.Remove(d.file)
	})
	return err
}

func (p *refProvider) SetTags(ctx context.Context, disk block.Disk, tags block.Tags) error {
	_, err := ask(ctx, p, "SetTags", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if err != nil {
			return struct{}{}, err
		}
		d.Tags = maps.Clone(d.Tags)
		for k, v := range tags {
			if d.Tags[k] = v; v == "" {
				delete(d.Tags, k)
			}
		}
		p.c.changed(d)
		return struct{}{}, nil
	})
	return err
}

func (p *refProvider) Match(d block.Disk, v block.Device) bool { return v.Serial == d.ID }

func (p *refProvider) Online() bool { return true }

func (p *refProvider) Resize(ctx context.Context, disk block.Disk, size int64) error {
	_, err := ask(ctx, p, "Resize", func() (struct{}, error) {
		d, err := p.disk(disk.ID)
		if err != nil || d.Size >= size {
			return struct{}{}, err
		}
		if err := os.Truncate(d.file, size); err != nil {
			return struct{}{}, err
		}
		d.Size = size
		p.c.changed(d)
		if len(d.Holders) > 0 {
			m := p.c.hosts[d.Holders[0].Host].Machine
			if name, ok := m.Named(d.file); ok {
				return struct{}{}, m.Grow(name)
			}
		}
		return struct{}{}, nil
	})
	return err
}

func (p *refProvider) Gone(ctx context.Context, host string) (bool, error) {
	return ask(ctx, p, "Gone", func() (bool, error) { return p.c.gone[host], nil })
}

func (p *refProvider) Find(ctx context.Context, ref string) ([]block.Foreign, error) {
	return ask(ctx, p, "Find", func() ([]block.Foreign, error) {
		var all []block.Foreign
		for _, d := range p.c.disks {
			if d.foreign != "" && d.Tags[block.TagUUID] == "" && (ref == "" || ref == d.ID || ref == d.foreign) {
				all = append(all, block.Foreign{Disk: d.Disk, Name: d.foreign})
			}
		}
		return all, nil
	})
}

func (p *refProvider) Adopt(ctx context.Context, f block.Foreign, tags block.Tags) error {
	return p.SetTags(ctx, f.Disk, tags)
}
