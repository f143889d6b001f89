package dobs

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Attach begins to attach a disk to this droplet. One that is attached to any is refused by
// DigitalOcean, whoever asks.
func (p *provider) Attach(ctx context.Context, d block.Disk, self block.Host) error {
	droplet, err := number(self.ID)
	if err != nil {
		return err
	}
	err = p.act(ctx, "volumes.attach", func(ctx context.Context) (*godo.Action, *godo.Response, error) {
		return p.do.StorageActions.Attach(ctx, d.ID, droplet)
	})
	switch text := textOf(err); {
	case err == nil:
		p.moved(d.ID, block.Attached)
		return nil
	case errors.Is(err, errdefs.ErrNotFound):
		return p.whichIsMissing(ctx, d, droplet, err)
	case strings.Contains(text, "volumes to"): // "cannot attach more volumes to the Droplet"
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "droplet %d has as many disks as DigitalOcean lets it have, 7 in most plans and 15 in some: %w", droplet, err),
			"stop a container that uses one, or run this one on another droplet")
	case strings.Contains(text, "region"):
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "disk %s is in region %s, and droplet %d in %s", d.ID, d.Zone, droplet, self.Zone), "run the container on a droplet in the region of the disk")
	case !errors.Is(err, errdefs.ErrInUse):
		return err
	}
	v, gerr := p.get(ctx, d.ID)
	if gerr != nil {
		return gerr
	}
	if slices.Contains(v.DropletIDs, droplet) { // by the request before
		return nil
	}
	return err
}

// The waits for a droplet that is busy.
const (
	firstTurn = 200 * time.Millisecond
	lastTurn  = 2 * time.Second
)

// act begins to attach or detach a disk. A droplet does one such thing at a time, for some seconds,
// and refuses any other meanwhile. So they wait for each other here, and the one whose turn it is
// asks until it is let in.
func (p *provider) act(ctx context.Context, call string, do func(context.Context) (*godo.Action, *godo.Response, error)) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "other disks are attached to the droplet first: %w", context.Cause(ctx)), "ask again: a droplet takes one disk at a time")
	}
	return patiently(ctx, func() error {
		_, _, err := ask(ctx, p, call, do)
		if statusOf(err) == http.StatusUnprocessableEntity && errors.Is(err, errdefs.ErrUnavailable) {
			return &busy{err}
		}
		return err
	})
}

// busy is an answer that says that something else has to be done first, which is a matter of
// seconds.
type busy struct{ error }

func (e *busy) Unwrap() error { return e.error }

// patiently does again what finds something busy.
func patiently(ctx context.Context, do func() error) error {
	for wait := firstTurn; ; wait = min(wait*3/2, lastTurn) {
		err := do()
		b, is := errors.AsType[*busy](err)
		if !is {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return b.error
		}
	}
}

// undisturbed does what a disk refuses (409) while it is attached, detached or resized.
func undisturbed(ctx context.Context, do func() error) error {
	return patiently(ctx, func() error {
		err := do()
		if statusOf(err) == http.StatusConflict {
			return &busy{err}
		}
		return err
	})
}

// whichIsMissing says whether there is no disk, or no droplet.
func (p *provider) whichIsMissing(ctx context.Context, d block.Disk, droplet int, err error) error {
	if _, gerr := p.get(ctx, d.ID); gerr != nil {
		return gerr
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "the token's account has no droplet %d, which is this host: %w", droplet, err),
		"the token has to be of the team that the droplet belongs to, and may need the right to read droplets")
}

// Detach begins to take a disk from a droplet. There is no other way by force: what the droplet
// still writes does not reach the disk.
func (p *provider) Detach(ctx context.Context, d block.Disk, host string, _ bool) error {
	droplet, err := number(host)
	if err != nil {
		return err
	}
	p.forget(d.ID)
	err = p.act(ctx, "volumes.detach", func(ctx context.Context) (*godo.Action, *godo.Response, error) {
		return p.do.StorageActions.DetachByDropletID(ctx, d.ID, droplet)
	})
	switch status := statusOf(err); {
	case err == nil:
		if self, err := p.Self(ctx); err == nil && self.ID == host {
			p.moved(d.ID, block.Detaching)
		}
		return nil
	case errors.Is(err, errdefs.ErrNotFound): // the disk, or the droplet, with which it goes
		return nil
	case errors.Is(err, errdefs.ErrUnavailable), status != http.StatusUnprocessableEntity && status != http.StatusConflict:
		return err
	}
	// It is not attached there; or it is on its way off, or on its way there.
	doing, derr := p.doing(ctx, d.ID)
	switch {
	case derr != nil:
		return derr
	case strings.HasPrefix(doing, "detach"): // by the request before
		return nil
	case doing != "":
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "disk %s is busy with another action, %s: %w", d.ID, doing, err), "wait until it has ended: doctl compute volume-action list "+d.ID)
	}
	v, gerr := p.get(ctx, d.ID)
	switch {
	case errors.Is(gerr, errdefs.ErrNotFound):
		return nil
	case gerr != nil:
		return gerr
	case slices.Contains(v.DropletIDs, droplet):
		return err
	}
	return nil
}

// move is what we have begun with a disk on this droplet.
type move struct {
	to block.Holding
	at time.Time
}

// movedFor is for how long a disk is believed to be on its way off without a look.
const movedFor = 30 * time.Second

func (p *provider) moved(id string, to block.Holding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moves[id] = move{to, time.Now()}
}

// moving says of disks that this droplet has which of them are on their way off, as lists do not.
// Those that a daemon before this one may have begun with are asked for, when it is about them.
func (p *provider) moving(ctx context.Context, q block.Query, disks []block.Disk) error {
	p.mu.Lock()
	self := p.self
	p.mu.Unlock()
	if self == nil {
		return nil
	}
	for i, d := range disks {
		at := slices.IndexFunc(d.Holders, func(h block.Holder) bool { return h.Host == self.ID })
		if at < 0 {
			continue
		}
		p.mu.Lock()
		m, known := p.moves[d.ID]
		p.mu.Unlock()
		switch {
		case known && (m.to == block.Attached || time.Since(m.at) < movedFor):
			disks[i].Holders[at].State = m.to
		case !q.All():
			doing, err := p.doing(ctx, d.ID)
			if err != nil {
				return err
			}
			if strings.HasPrefix(doing, "detach") {
				disks[i].Holders[at].State = block.Detaching
			} else {
				p.moved(d.ID, block.Attached)
			}
		}
	}
	return nil
}

// doing returns what DigitalOcean is about to do to a disk, empty if that is nothing.
func (p *provider) doing(ctx context.Context, id string) (string, error) {
	list, _, err := ask(ctx, p, "actions.list", func(ctx context.Context) ([]godo.Action, *godo.Response, error) {
		return p.do.StorageActions.List(ctx, id, &godo.ListOptions{PerPage: 10}) // the newest come first
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return "", nil
	}
	for _, a := range list {
		if a.Status == godo.ActionInProgress {
			return a.Type, nil
		}
	}
	return "", err
}

func number(droplet string) (int, error) {
	n, err := strconv.Atoi(droplet)
	if err != nil || n <= 0 {
		return 0, errdefs.Errorf(errdefs.ErrInvalid, "%q is not the ID of a droplet", droplet)
	}
	return n, nil
}

// link begins the name that udev gives a disk; that at DigitalOcean follows.
const link = "scsi-0DO_Volume_"

// Match tells whether a device is the disk: what the device says of itself is in its link. Its
// serial may be cut off.
func (p *provider) Match(d block.Disk, v block.Device) bool {
	name := d.Facts[factName]
	return name != "" && slices.Contains(v.Links, link+name)
}

// Gone tells whether a droplet is off or destroyed, and can write no more.
func (p *provider) Gone(ctx context.Context, host string) (bool, error) {
	droplet, err := p.droplet(ctx, host)
	if errors.Is(err, errdefs.ErrNotFound) {
		// For a token that may see no droplets at all each of them is gone. This one is not.
		self, err := p.Self(ctx)
		if err == nil {
			_, err = p.droplet(ctx, self.ID)
		}
		return err == nil, err
	}
	return err == nil && (droplet.Status == "off" || droplet.Status == "archive"), err
}

func (p *provider) droplet(ctx context.Context, host string) (*godo.Droplet, error) {
	id, err := number(host)
	if err != nil {
		return nil, err
	}
	droplet, _, err := ask(ctx, p, "droplets.get", func(ctx context.Context) (*godo.Droplet, *godo.Response, error) {
		return p.do.Droplets.Get(ctx, id)
	})
	return droplet, err
}
