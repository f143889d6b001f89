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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

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
	names  sync.Map // the name of an image by its id

	mu       sync.Mutex
	attached map[string]*attachment // by the id of the image
	busy     map[string]*sync.Mutex
	longs    map[string]*running
}

// Driver describes the driver rbd.
func Driver() catalog.Volume {
	return catalog.NewVolume("rbd", "an image of a Ceph cluster for each volume, which follows its container", open).WithOptions(block.Options(traits(&config{})))
}

func traits(c *config) block.Traits {
	return block.Traits{
		Kind: "rbd", Scope: "pool " + c.Pool, Options: []string{"snapshot"}, Extra: catalog.Describe[extra](), Check: c.checkSpec,
		Unit: 1 << 20, MinSize: 1 << 20, MaxSize: 16 << 50,
	}
}

// newProvider makes what a pool has on this host. It asks nobody.
func newProvider(c config, env catalog.Env) (*provider, error) {
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
		cluster: &cluster{c: &c}, host: host, boot: boot, dir: filepath.Join(env.RunDir, "rbd", env.PoolName),
		attached: map[string]*attachment{}, busy: map[string]*sync.Mutex{}, longs: map[string]*running{},
	}
	p.traits = traits(&c)
	p.traits.Client = block.NewClient(strings.Join(slices.DeleteFunc([]string{"rbd", c.Conf, c.User, c.Pool, c.RadosNS}, func(s string) bool { return s == "" }), " "), c.Rate)
	if p.map_, err = p.choose(); err != nil {
		return nil, err
	}
	return p, p.load()
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

// Create makes an image, empty or as a clone of a snapshot. Whoever was faster has made it.
func (p *provider) Create(ctx context.Context, s block.Spec) (d block.Disk, err error) {
	err = p.do(ctx, "Create", func(ctx context.Context) error {
		d, err = p.create(ctx, s)
		return err
	})
	return d, err
}

func (p *provider) create(ctx context.Context, s block.Spec) (block.Disk, error) {
	image := imageName(s.Tags)
	args, e, err := p.c.layout(s)
	if err != nil {
		return block.Disk{}, err
	}
	w := written{Made: time.Now().UTC().Truncate(time.Second), Tags: s.Tags}
	fresh := true
	if s.Snapshot == nil {
		_, err = p.rbd(ctx, append([]string{"create", p.spec(image), "--size", bytesOf(s.Size)}, args...)...)
	} else {
		w.Flatten = *e.Flatten
		var from string
		if from, err = p.snapshotSpec(ctx, s.Snapshot.ID); err == nil {
			_, err = p.rbd(ctx, append([]string{"clone", "--rbd-default-clone-format", "2", from, p.spec(image)}, args...)...)
		}
		if status(err) == enoent {
			err = errdefs.Errorf(errdefs.ErrInvalid, "snapshot %s: there is none in pool %s", s.Snapshot.ID, p.c.Pool)
		}
	}
	if status(err) == syscall.EEXIST {
		fresh, err = false, nil
	}
	if err != nil {
		return block.Disk{}, err
	}
	i, err := p.info(ctx, image)
	if err != nil {
		return block.Disk{}, err
	}
	if i.Size < s.Size && (s.Snapshot != nil) {
		if _, err := p.rbd(ctx, "resize", p.spec(image), "--size", bytesOf(s.Size), "--no-progress"); err != nil {
			return block.Disk{}, err
		}
		i.Size = s.Size
	}
	if i.Size > s.Size && s.Size != 0 && s.Snapshot != nil && fresh {
		_, err := p.rbd(ctx, "rm", p.spec(image), "--no-progress")
		return block.Disk{}, errors.Join(errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s of the snapshot", catalog.Bytes(s.Size), catalog.Bytes(i.Size)), err)
	}
	if fresh && s.Snapshot == nil {
		err = p.writeNew(ctx, image, w)
	} else {
		err = p.write(ctx, image, w)
	}
	if err != nil {
		return block.Disk{}, err
	}
	if fresh {
		return p.disk(w, i), nil
	}
	d, ok, err := p.look(ctx, image)
	if err == nil && !ok {
		err = errdefs.Errorf(errdefs.ErrExists, "image %s is there, and is not this volume's", image)
	}
	return d, err
}

// Delete removes an image that nobody has. One whose snapshots live on in clones goes to the
// cluster's trash, and is removed from there with the last of them.
func (p *provider) Delete(ctx context.Context, d block.Disk) error {
	return p.do(ctx, "Delete", func(ctx context.Context) error {
		err := p.delete(ctx, d)
		if errors.Is(err, errdefs.ErrNotFound) {
			p.names.Delete(d.ID)
			return nil
		}
		return err
	})
}

func (p *provider) delete(ctx context.Context, d block.Disk) error {
	image, err := p.imageOf(ctx, d)
	if err != nil {
		return err
	}
	i, err := p.info(ctx, image)
	if err != nil {
		return p.missing(d.ID, err)
	}
	if i.ID != d.ID {
		p.names.Delete(d.ID)
		if image, err = p.nameOf(ctx, d.ID); err != nil {
			return err
		}
	}
	locks, err := p.locks(ctx, image)
	if err != nil {
		return p.missing(d.ID, err)
	}
	if len(locks) > 0 {
		return errdefs.Errorf(errdefs.ErrInUse, "image %s is locked by host %s", image, locks[0].holder().Host)
	}
	err = p.long(ctx, "rm "+d.ID, "rm", p.spec(image), "--no-progress")
	if status(err) == syscall.ENOTEMPTY {
		var snaps []snap
		if snaps, err = ask[[]snap](ctx, p.cluster, "snap", "ls", p.spec(image)); err == nil {
			if len(snaps) > 0 {
				return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "image %s has the snapshot %q, which was not made by Remora", image, snaps[0].Name), "rbd snap rm "+p.spec(image)+"@"+snaps[0].Name)
			}
			_, err = p.rbd(ctx, "trash", "mv", p.spec(image))
		}
	}
	if err != nil {
		return p.missing(d.ID, err)
	}
	p.names.Delete(d.ID)
	if i.Parent != nil && i.Parent.Trash { // which may have been kept for this image alone
		err := p.long(ctx, "trash rm "+i.Parent.ID, append([]string{"trash", "rm", i.Parent.ID, "--no-progress"}, p.inPool()...)...)
		if st := status(err); err != nil && st != syscall.ENOTEMPTY && st != syscall.EBUSY && st != enoent {
			return err
		}
	}
	return nil
}

// Online is true: an image can grow while a host has it.
func (p *provider) Online() bool { return true }

// Resize makes an image larger, and tells the device of this host.
func (p *provider) Resize(ctx context.Context, d block.Disk, size int64) error {
	return p.do(ctx, "Resize", func(ctx context.Context) error {
		image, err := p.imageOf(ctx, d)
		if err != nil {
			return err
		}
		i, err := p.info(ctx, image)
		if err != nil {
			return p.missing(d.ID, err)
		}
		if i.Size < size {
			if _, err := p.rbd(ctx, "resize", p.spec(image), "--size", bytesOf(size), "--no-progress"); err != nil {
				return p.missing(d.ID, err)
			}
		}
		if a := p.attachment(d.ID); a != nil {
			return p.map_.grow(ctx, a)
		}
		return nil
	})
}
