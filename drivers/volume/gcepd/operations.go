package gcepd

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/api/compute/v1"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const done = "DONE"

// pending is an operation that was begun here, until a list shows what has come of it. An
// operation may fail after the request was answered, and a list does not say so.
type pending struct {
	name, zone string
	kind       string // insert, attachDisk, detachDisk
	disk       block.Disk
	host       string
	at         time.Time
}

// forgetAfter is when an operation that nobody asked about is forgotten.
const forgetAfter = 15 * time.Minute

// begun notes an operation. It is an error where it has failed already.
func (p *provider) begun(op *compute.Operation, kind string, disk block.Disk, host string) error {
	if op.Status == done {
		p.ended(disk.ID)
		return p.failure(op)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, o := range p.pending {
		if time.Since(o.at) > forgetAfter {
			delete(p.pending, id)
		}
	}
	p.pending[disk.ID] = pending{op.Name, disk.Zone, kind, disk, host, time.Now()}
	return nil
}

func (p *provider) ended(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, id)
}

// going tells whether a disk is on its way to, or off, a host.
func (p *provider) going(id, kind, host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.pending[id]
	return ok && o.kind == kind && o.host == host && time.Since(o.at) < forgetAfter
}

// watched adds to a list what is known of the operations on its disks: that they are still going
// on, or why they have failed. It asks for those of which the list shows nothing.
func (p *provider) watched(ctx context.Context, q block.Query, list []block.Disk) []block.Disk {
	p.mu.Lock()
	var all []pending
	for id, o := range p.pending {
		if o.disk.Tags[block.TagNamespace] == q.Namespace && q.Takes(id, o.disk.Tags[block.TagName]) {
			all = append(all, o)
		}
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b pending) int { return cmp.Compare(a.disk.ID, b.disk.ID) })
	for _, o := range all {
		i := slices.IndexFunc(list, func(d block.Disk) bool { return d.ID == o.disk.ID })
		var d *block.Disk
		at := -1
		if i >= 0 {
			d = &list[i]
			at = slices.IndexFunc(d.Holders, func(h block.Holder) bool { return h.Host == o.host })
		}
		var seen bool
		switch o.kind {
		case "insert":
			seen = d != nil && d.State != block.Creating
		case "attachDisk":
			seen = at >= 0
		case "detachDisk":
			seen = d == nil || at < 0
		}
		if seen {
			p.ended(o.disk.ID)
			continue
		}
		if o.kind == "insert" && d != nil {
			continue
		}
		state, why := p.state(ctx, o)
		if why != nil || state == block.Attached {
			p.ended(o.disk.ID)
		}
		switch {
		case o.kind == "insert" && why != nil:
			gone := o.disk
			gone.State, gone.Reason = block.Failed, why.Error()
			list = append(list, gone)
		case d == nil || state == block.Attached:
		case o.kind == "attachDisk" && (why == nil || !errors.Is(why, errdefs.ErrInUse)):
			d.Holders = append(d.Holders, block.Holder{Host: o.host, State: state, Since: o.at})
		case o.kind == "detachDisk":
			d.Holders[at].State = state
		}
		if d != nil && why != nil {
			d.Reason = why.Error()
		}
	}
	return list
}

// state asks how far an operation is: on its way, at its end (which is as good as attached, and
// the list is behind), or stuck, and why.
func (p *provider) state(ctx context.Context, o pending) (block.Holding, error) {
	going := block.Attaching
	if o.kind == "detachDisk" {
		going = block.Detaching
	}
	op, err := ask(ctx, p, "zoneOperations.get", "zone "+o.zone, p.api.ZoneOperations.Get(p.c.Project, o.zone, o.name).Context(ctx))
	if err != nil || op.Status != done {
		return going, nil //nolint:nilerr // nothing is known then
	}
	if why := p.failure(op); why != nil {
		return block.Stuck, why
	}
	return block.Attached, nil
}

// wait waits for an operation by requests that come back when it is over. It is for what has to
// be there before anything else is done, and takes a second or two.
func (p *provider) wait(ctx context.Context, op *compute.Operation) error {
	for op.Status != done {
		zone := last(op.Zone)
		var err error
		op, err = ask(ctx, p, "zoneOperations.wait", "zone "+zone, p.api.ZoneOperations.Wait(p.c.Project, zone, op.Name).Context(ctx))
		if err != nil {
			return err
		}
	}
	return p.failure(op)
}
