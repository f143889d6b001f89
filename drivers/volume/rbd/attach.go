package rbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// attachment is an image that is a device of this host, or is about to be. It is written down
// before it is made, where a reboot ends it.
type attachment struct {
	ID, Image string
	Nonce     string // that of the lock
	Locked    bool   // all is done
	Map       string // by which mapper
	Dir       string // of the mapper's own
	Device    string // the kernel's name, where the mapper knows it
	Mapping   bool   // rbd map was called
	Server    string // behind a device of nbd
	PID       int    // of the mapper's program

	mu      sync.Mutex
	lost    bool
	looking bool
	looked  time.Time
	claimed time.Time
	reading *reading
}

// mapper makes a device of an image.
type mapper interface {
	name() string
	// open makes the image known to this host, by a client of its own. Nothing is written.
	open(ctx context.Context, a *attachment) error
	// plug makes the device, and grow tells it that the image is larger.
	plug(ctx context.Context, a *attachment) error
	grow(ctx context.Context, a *attachment) error
	// shows tells by sysfs whether a device is the image.
	shows(a *attachment, v block.Device) bool
	// file is where the image can be read.
	file(a *attachment) string
	// close undoes it all, as far as it was done. force does so to a device that is in use.
	close(ctx context.Context, a *attachment, force bool) error
}

const recordVersion = 1

// load reads what a daemon before this one has attached.
func (p *provider) load() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return state.Classify(err)
	}
	dir, err := filepath.EvalSymlinks(p.dir)
	if err != nil {
		return state.Classify(err)
	}
	p.dir = dir
	root, err := os.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		a := &attachment{}
		if err := state.Read(root, filepath.Base(file), recordVersion, a); err != nil {
			return err
		}
		p.attached[a.ID] = a
	}
	return nil
}

func (p *provider) save(a *attachment) error {
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	if err := state.Write(root, a.ID+".json", recordVersion, a); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attached[a.ID] = a
	return nil
}

func (p *provider) forget(a *attachment) error {
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	if err := state.Remove(root, a.ID+".json"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.attached, a.ID)
	return nil
}

func (p *provider) attachment(id string) *attachment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attached[id]
}

// alone keeps two calls from changing one attachment at a time.
func (p *provider) alone(id string) (free func()) {
	p.mu.Lock()
	m := p.busy[id]
	if m == nil {
		m = &sync.Mutex{}
		p.busy[id] = m
	}
	p.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// Match tells whether a device is the image that this host has attached. Where it is, and was not
// looked at for a while, it is looked at in the background whether this host still has it.
func (p *provider) Match(d block.Disk, v block.Device) bool {
	a := p.attachment(d.ID)
	if a == nil || a.isLost() || !p.wayOf(a).shows(a, v) {
		return false
	}
	p.watch(a)
	return true
}

// Attach opens the image, locks it in the name of the client that has it open now, and makes the
// device.
func (p *provider) Attach(ctx context.Context, d block.Disk, self block.Host) error {
	return p.do(ctx, "Attach", func(ctx context.Context) error {
		defer p.alone(d.ID)()
		image, err := p.imageOf(ctx, d)
		if err != nil {
			return err
		}
		return p.attach(ctx, d.ID, image)
	})
}

func (p *provider) attach(ctx context.Context, id, image string) error {
	locks, err := p.locks(ctx, image)
	if err != nil {
		return p.missing(id, err)
	}
	a := p.attachment(id)
	for _, l := range locks {
		c, ok := l.claim()
		mine := ok && c.Host == p.host && a != nil && c.Nonce == a.Nonce
		if mine && a.Locked && !a.isLost() && p.read(ctx, a) == nil {
			return p.wayOf(a).plug(ctx, a)
		}
		if !mine {
			if err := p.own(ctx, image, l, c, ok); err != nil {
				return err
			}
		}
	}
	if a != nil {
		if err := p.wayOf(a).close(ctx, a, a.isLost()); err != nil {
			return err
		}
	}
	for _, l := range locks {
		if err := p.release(ctx, image, l); err != nil {
			return err
		}
	}
	a = &attachment{ID: id, Image: image, Nonce: nonce(), Map: p.map_.name(), Dir: filepath.Join(p.dir, id)}
	if err := p.save(a); err != nil {
		return err
	}
	if err := p.make(ctx, a); err != nil {
		// What is left of it is closed by the next try, where this cannot be done now.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.c.Timeout)
		defer cancel()
		if cerr := p.map_.close(clean, a, false); cerr != nil {
			return errors.Join(err, cerr)
		}
		return err
	}
	return nil
}

func (p *provider) make(ctx context.Context, a *attachment) error {
	if err := p.map_.open(ctx, a); err != nil {
		return err
	}
	if err := p.save(a); err != nil {
		return err
	}
	clients, err := p.watchers(ctx, a.Image)
	if err != nil {
		return err
	}
	if len(clients) == 0 {
		return errdefs.Errorf(errdefs.ErrUnavailable, "image %s: the cluster does not see that this host has it open", a.Image)
	}
	err = p.acquire(ctx, a.Image, claim{Host: p.host, Boot: p.boot, Nonce: a.Nonce, Since: time.Now(), Clients: clients})
	if err != nil {
		return err
	}
	if err := p.map_.plug(ctx, a); err != nil {
		return err
	}
	a.Locked, a.claimed, a.looked = true, time.Now(), time.Now()
	return p.save(a)
}

// own tells whether a lock that this daemon knows nothing of may be released: it is of this host,
// from before it was started again, and its client is gone. Everything else is refused.
func (p *provider) own(ctx context.Context, image string, l lock, c claim, ok bool) error {
	switch {
	case !ok || c.Host != p.host:
		return errdefs.Errorf(errdefs.ErrInUse, "image %s is locked by host %s", image, l.holder().Host)
	case c.Nonce == rolling:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "image %s is being brought back to a snapshot", image), "where that was cut off, do the rollback again")
	case c.Boot == p.boot:
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "image %s is attached to this host by another daemon, or one whose directory below /run was deleted", image),
			fmt.Sprintf("when nothing here uses it: rbd lock rm %s '%s' %s", p.spec(image), l.ID, l.Locker))
	}
	watching, err := p.watchers(ctx, image)
	if err != nil {
		return err
	}
	for _, w := range watching {
		if slices.Contains(c.Clients, w) {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "image %s is still open by a host of this name, from before a reboot", image),
				"after a reboot the cluster waits 30 s for what was there before; where two hosts have one name, say host = \"NAME\" in the pool")
		}
	}
	return p.steal(ctx, image, l)
}

// Detach lets an image go, or by force takes it from another host, whose client is fenced.
func (p *provider) Detach(ctx context.Context, d block.Disk, host string, force bool) error {
	return p.do(ctx, "Detach", func(ctx context.Context) error {
		defer p.alone(d.ID)()
		image, err := p.imageOf(ctx, d)
		if err != nil {
			return err
		}
		a := p.attachment(d.ID)
		if host == p.host && a != nil {
			if err := p.wayOf(a).close(ctx, a, force || a.isLost()); err != nil {
				return err
			}
		}
		locks, err := p.locks(ctx, image)
		if err != nil {
			return p.missing(d.ID, err)
		}
		for _, l := range locks {
			c, ok := l.claim()
			switch {
			case l.holder().Host != host || ok && c.Nonce == rolling:
			case ok && host == p.host && a != nil && c.Nonce == a.Nonce:
				err = p.release(ctx, image, l)
			case force:
				err = p.steal(ctx, image, l)
			case host == p.host:
				err = p.own(ctx, image, l, c, ok)
			default:
				err = errdefs.Errorf(errdefs.ErrInUse, "image %s is locked by host %s", image, host)
			}
			if err != nil {
				return err
			}
		}
		if host == p.host && a != nil {
			return p.forget(a)
		}
		return nil
	})
}
