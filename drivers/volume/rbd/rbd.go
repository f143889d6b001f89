// Package rbd is volumes that are images of a Ceph cluster: an image for each, which is locked by
// the host that has it.
//
// The cluster is asked by its own programs, rbd and ceph. What is written down of a volume lies on
// its image, and who has it is in the image's lock, see lock.go. How an image becomes a device of
// the host is behind [mapper].
package rbd

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const enoent = syscall.ENOENT

// provider is a pool of images.
type provider struct {
	*cluster
	traits block.Traits
	host   string
	boot   string
	dir    string // what is attached, until a reboot
	map_   mapper
	log    *slog.Logger
	life   context.Context //nolint:containedctx // that of what goes on in the background, until end
	end    context.CancelFunc
	names  sync.Map // the name of an image by its id

	mu       sync.Mutex
	attached map[string]*attachment // by the id of the image
	busy     map[string]*sync.Mutex
	longs    map[string]*running
}

// Driver describes the driver rbd.
func Driver() catalog.Volume {
	return catalog.NewVolume("rbd", "an image of a Ceph cluster for each volume, which follows its container", open).WithOptions(block.Options(traits(&config{}))).WithVariables(described()...)
}

func traits(c *config) block.Traits {
	return block.Traits{
		Kind: "rbd", Scope: "pool " + c.Pool, Options: []string{"snapshot"}, Extra: catalog.Describe[extra](), Check: c.checkSpec,
		Unit: 1 << 20, MinSize: 1 << 20, MaxSize: 16 << 50,
	}
}

// newProvider makes what a pool has on this host. It asks nobody.
func newProvider(ctx context.Context, c config, env catalog.Env) (*provider, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	host, err := hostName(c.Host)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	p := &provider{
		cluster: &cluster{c: &c}, host: host, boot: boot, dir: filepath.Join(env.RunDir, "rbd", env.PoolName), log: env.Log(),
		attached: map[string]*attachment{}, busy: map[string]*sync.Mutex{}, longs: map[string]*running{},
	}
	p.traits = traits(&c)
	p.traits.Client = block.NewClient(strings.Join(slices.DeleteFunc([]string{"rbd", c.Conf, c.User, c.Pool, c.RadosNS}, func(s string) bool { return s == "" }), " "), c.Rate)
	if p.map_, err = p.choose(); err != nil {
		return nil, err
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	p.life, p.end = context.WithCancel(context.WithoutCancel(ctx))
	return p, nil
}

func (p *provider) Traits() block.Traits { return p.traits }

func (p *provider) Self(context.Context) (block.Host, error) { return block.Host{ID: p.host}, nil }

// do makes a request, which may be several commands.
func (p *provider) do(ctx context.Context, op string, f func(context.Context) error) error {
	return p.traits.Client.Do(ctx, op, f)
}

// info is what rbd info says of an image.
type info struct {
	Name     string   `json:"name"`
	ID       string   `json:"id"`
	Size     int64    `json:"size"`
	Features []string `json:"features"`
	Parent   *struct {
		ID, Image, Snapshot string
		Trash               bool
	} `json:"parent"`
}

func (p *provider) info(ctx context.Context, image string) (info, error) {
	return ask[info](ctx, p.cluster, "info", p.spec(image))
}

// row is what rbd ls --long says of an image, or of a snapshot of it.
type row struct {
	Image    string `json:"image"`
	ID       string `json:"id"`
	Snapshot string `json:"snapshot"`
	Size     int64  `json:"size"`
	Parent   *struct{ Image string }
}

// rows lists the pool. One that goes away meanwhile is an error of the whole command.
func (p *provider) rows(ctx context.Context) (all []row, err error) {
	for range 3 {
		all, err = ask[[]row](ctx, p.cluster, append([]string{"ls", "--long"}, p.inPool()...)...)
		if status(err) != enoent {
			break
		}
	}
	for _, r := range all {
		if r.Snapshot == "" {
			p.names.Store(r.ID, r.Image)
		}
	}
	return all, err
}

// imageOf returns the name of a disk's image.
func (p *provider) imageOf(ctx context.Context, d block.Disk) (string, error) {
	if name := d.Facts["image"]; name != "" {
		if known, ok := p.names.Load(d.ID); ok {
			return known.(string), nil
		}
		return name, nil
	}
	return p.nameOf(ctx, d.ID)
}

// nameOf returns the name of the image with an id.
func (p *provider) nameOf(ctx context.Context, id string) (string, error) {
	if name, ok := p.names.Load(id); ok {
		return name.(string), nil
	}
	if _, err := p.rows(ctx); err != nil {
		return "", err
	}
	if name, ok := p.names.Load(id); ok {
		return name.(string), nil
	}
	return "", errdefs.Errorf(errdefs.ErrNotFound, "image %s: not in pool %s", id, p.c.Pool)
}

// List returns the images with our tags: for all, one command and one more for each; for a few,
// three for each.
func (p *provider) List(ctx context.Context, q block.Query) (all []block.Disk, err error) {
	err = p.do(ctx, "List", func(ctx context.Context) error {
		switch {
		case q.All():
			all, err = p.listAll(ctx, q)
		default:
			all, err = p.listSome(ctx, q)
		}
		return err
	})
	return all, err
}

// wide is how many commands run at once.
const wide = 4

// each calls f for all of list, a few at once. What is not there any more is left out.
func each[T, V any](ctx context.Context, list []T, f func(context.Context, T) (V, bool, error)) ([]V, error) {
	var (
		mu   sync.Mutex
		all  []V
		errs []error
		work sync.WaitGroup
		room = make(chan struct{}, wide)
	)
	for _, t := range list {
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			v, ok, err := f(ctx, t)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil && status(err) != enoent:
				errs = append(errs, err)
			case err == nil && ok:
				all = append(all, v)
			}
		})
	}
	work.Wait()
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return all, nil
}

func (p *provider) listAll(ctx context.Context, q block.Query) ([]block.Disk, error) {
	rows, err := p.rows(ctx)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return r.Snapshot != "" || !strings.HasPrefix(r.Image, ours) })
	return each(ctx, rows, func(ctx context.Context, r row) (block.Disk, bool, error) {
		m, err := p.meta(ctx, r.Image)
		if err != nil {
			return block.Disk{}, false, err
		}
		w, own := m.tags(r.Image)
		if !own || w.Tags[block.TagNamespace] != q.Namespace {
			return block.Disk{}, false, nil
		}
		d := p.disk(w, info{Name: r.Image, ID: r.ID, Size: r.Size})
		d.Unlooked = true
		if w.Flatten && r.Parent != nil {
			d.State = block.Creating
		}
		return d, true, nil
	})
}

func (p *provider) disk(w written, i info) block.Disk {
	p.names.Store(i.ID, i.Name)
	d := block.Disk{ID: i.ID, Tags: w.Tags, Size: i.Size, State: block.Ready, Created: w.Made, Facts: map[string]string{"image": i.Name}}
	if w.Flatten && i.Parent != nil {
		d.State = block.Creating
	}
	return d
}

func (p *provider) listSome(ctx context.Context, q block.Query) ([]block.Disk, error) {
	images := map[string]bool{}
	for _, id := range q.IDs {
		name, err := p.nameOf(ctx, id)
		switch {
		case errors.Is(err, errdefs.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			images[name] = true
		}
	}
	if len(q.Names) > 0 {
		names, err := ask[[]string](ctx, p.cluster, append([]string{"ls"}, p.inPool()...)...)
		if err != nil {
			return nil, err
		}
		wanted := map[string]bool{}
		for _, n := range q.Names {
			wanted[nameHash(q.Namespace, n)] = true
		}
		for _, image := range names {
			hash, _, _ := strings.Cut(strings.TrimPrefix(image, ours), ".")
			if strings.HasPrefix(image, ours) && wanted[hash] {
				images[image] = true
			}
		}
	}
	var list []string
	for image := range images {
		list = append(list, image)
	}
	found, err := each(ctx, list, func(ctx context.Context, image string) (block.Disk, bool, error) {
		d, ok, err := p.look(ctx, image)
		return d, ok && d.Tags[block.TagNamespace] == q.Namespace && q.Takes(d.ID, d.Tags[block.TagName]), err
	})
	if err != nil {
		return nil, err
	}
	// One that another host has renamed meanwhile is where it was not.
	for _, id := range q.IDs {
		if old, ok := p.names.Load(id); ok && !slices.ContainsFunc(found, func(d block.Disk) bool { return d.ID == id }) {
			p.names.Delete(id)
			name, err := p.nameOf(ctx, id)
			if errors.Is(err, errdefs.ErrNotFound) || name == old {
				continue
			}
			if err != nil {
				return nil, err
			}
			if d, ok, err := p.look(ctx, name); err == nil && ok {
				found = append(found, d)
			}
		}
	}
	return found, nil
}

// look asks for all that is known of an image, at once.
func (p *provider) look(ctx context.Context, image string) (d block.Disk, ok bool, err error) {
	var (
		i          info
		m          meta
		locks      []lock
		e1, e2, e3 error
		work       sync.WaitGroup
	)
	work.Go(func() { i, e1 = p.info(ctx, image) })
	work.Go(func() { m, e2 = p.meta(ctx, image) })
	work.Go(func() { locks, e3 = p.locks(ctx, image) })
	work.Wait()
	for _, err := range []error{e1, e2, e3} {
		if err != nil {
			return d, false, err
		}
	}
	w, own := m.tags(image)
	if !own {
		return d, false, nil
	}
	d = p.disk(w, i)
	for _, l := range locks {
		d.Holders = append(d.Holders, l.holder())
	}
	if d.State == block.Creating {
		go func() {
			_ = p.long(context.WithoutCancel(ctx), "flatten "+i.ID, "flatten", p.spec(image), "--no-progress")
		}()
	}
	return d, true, nil
}
