package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// list asks the cloud, and takes over what it says.
func (d *driver) list(ctx context.Context, q Query) ([]Disk, error) {
	q.Namespace = d.c.Namespace
	began := time.Now()
	all, err := call(ctx, func(ctx context.Context) ([]Disk, error) { return d.p.List(ctx, q) })
	if part, ok := errors.AsType[*partial](err); ok && q.All() {
		d.x.mergePart(q, all, began, part.zones)
	}
	if err == nil && q.All() && !d.x.pass(ownerOf(d.p, d.c), began) {
		err = d.doubt(all)
	}
	if err != nil {
		return nil, err
	}
	d.x.merge(q, all, began)
	return all, nil
}

// doubt refuses a list that lacks most of what there was, or what is mounted here: a cloud that is
// not well may answer with nothing, and an engine forgets what it is told is gone. It is believed
// when it has been said for a while.
func (d *driver) doubt(list []Disk) error {
	listed := make(map[string]bool, len(list))
	for _, o := range list {
		listed[o.ID] = true
	}
	records, err := d.records()
	if err != nil {
		return err
	}
	known, lacks, used := d.x.lacking(listed), 0, false
	for _, id := range known.missing {
		lacks++
		used = used || slices.ContainsFunc(records, func(m mounted) bool { return m.Disk == id })
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !used && 2*lacks <= known.all {
		d.doubted = time.Time{}
		return nil
	}
	if d.doubted.IsZero() {
		d.doubted = time.Now()
	}
	if time.Since(d.doubted) < settled {
		return errdefs.Errorf(errdefs.ErrUnavailable, "the cloud does not list %d of the %d volumes that there were; it is asked again before that is believed", lacks, known.all)
	}
	d.doubted = time.Time{}
	return nil
}

// finder looks for volumes by name. Who looks at the same time is answered with one request.
type finder struct {
	d       *driver
	mu      sync.Mutex
	pending *find
}

type find struct {
	names []string
	done  chan struct{}
	err   error
}

// gather is how long a look waits for others, of which there are most names.
const (
	gather = 5 * time.Millisecond
	most   = 100
)

// look asks the cloud for a volume.
func (f *finder) look(ctx context.Context, name string) error {
	f.mu.Lock()
	p := f.pending
	if p == nil || len(p.names) >= most {
		p = &find{done: make(chan struct{})}
		f.pending = p
		f.d.background.Go(func() {
			time.Sleep(gather)
			f.mu.Lock()
			if f.pending == p {
				f.pending = nil
			}
			names := p.names
			f.mu.Unlock()
			_, p.err = f.d.list(f.d.ctx, Query{Names: names})
			close(p.done)
		})
	}
	if !slices.Contains(p.names, name) {
		p.names = append(p.names, name)
	}
	f.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return errdefs.Errorf(errdefs.ErrUnavailable, "the cloud does not answer: %w", context.Cause(ctx))
	}
}

// fresh returns the disk of a volume as the cloud knows it now. It is ErrNotFound where there is
// none.
func (d *driver) fresh(ctx context.Context, r *jobs.Run, name string) (Disk, error) {
	was, had := d.x.volume(name)
	_, err := again(ctx, r, just(func(ctx context.Context) error { return d.finds.look(ctx, name) }))
	if err != nil {
		return Disk{}, err
	}
	disk, ok := d.x.volume(name)
	if !ok && had { // a second disk of a name is worse than one more question
		if _, err := d.again(ctx, r, was); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return Disk{}, err
		}
		disk, ok = d.x.volume(name)
	}
	if !ok {
		return Disk{}, errNoVolume
	}
	return disk, nil
}

var errNoVolume = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

// poller waits for disks to get to a state, with one request for all that are waited for.
type poller struct {
	d    *driver
	mu   sync.Mutex
	all  []*wait
	wake chan struct{} // nil while nobody is waiting
}

type wait struct {
	id    string
	until func(d Disk, there bool) (done bool, err error)
	next  time.Time
	step  time.Duration
	done  chan error
}

// The waits between two looks.
const (
	firstPoll = 400 * time.Millisecond
	lastPoll  = 5 * time.Second
)

// await asks for a disk until it is as until wants it. first is when it is asked for the first
// time: at once where nothing else tells.
func (d *driver) await(ctx context.Context, id string, first time.Duration, until func(d Disk, there bool) (bool, error)) error {
	w := &wait{id: id, until: until, next: time.Now().Add(first), step: d.t.Poll, done: make(chan error, 1)}
	p := &d.polls
	p.mu.Lock()
	p.all = append(p.all, w)
	if p.wake == nil {
		p.wake = make(chan struct{}, 1)
		d.background.Go(p.loop)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
	p.mu.Unlock()
	defer p.drop(w)
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
	}
}

func (p *poller) drop(w *wait) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, func(o *wait) bool { return o == w })
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// due returns what is waited for, and how long it is until somebody has to be asked for.
func (p *poller) due() (all []*wait, in time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) == 0 || p.d.ctx.Err() != nil {
		p.wake = nil
		return nil, 0
	}
	in = time.Hour
	for _, w := range p.all {
		in = min(in, time.Until(w.next))
	}
	return slices.Clone(p.all), in
}

func (p *poller) loop() {
	for {
		p.mu.Lock()
		wake := p.wake
		p.mu.Unlock()
		all, in := p.due()
		if all == nil {
			return
		}
		if in > 0 {
			t := time.NewTimer(in)
			select {
			case <-t.C:
			case <-wake:
				t.Stop()
			case <-p.d.ctx.Done():
				t.Stop()
			}
			continue
		}
		p.ask(all)
	}
}

func (p *poller) ask(all []*wait) {
	var q Query
	for _, w := range all {
		if !slices.Contains(q.IDs, w.id) {
			q.IDs = append(q.IDs, w.id)
		}
	}
	list, err := p.d.list(p.d.ctx, q)
	for _, w := range all {
		p.mu.Lock()
		w.next, w.step = time.Now().Add(w.step), min(w.step*3/2, lastPoll)
		p.mu.Unlock()
		if err != nil {
			if definite(err) {
				w.end(err)
			}
			continue
		}
		i := slices.IndexFunc(list, func(d Disk) bool { return d.ID == w.id })
		var d Disk
		if i >= 0 {
			d = list[i]
		}
		if done, err := w.until(d, i >= 0); done || err != nil {
			w.end(err)
		}
	}
}

// definite tells whether to ask again is of no use.
func definite(err error) bool {
	return errors.Is(err, errdefs.ErrDenied) || errors.Is(err, errdefs.ErrInvalid)
}

func (w *wait) end(err error) {
	select {
	case w.done <- err:
	default:
	}
}

// refreshLoop lists the volumes every now and then: hosts that started together do not ask
// together.
func (d *driver) refreshLoop() {
	wait := time.Duration(0)
	d.idle(Host{}) // the cloud may take its time
	for {
		select {
		case <-time.After(wait):
		case <-d.ctx.Done():
			return
		}
		err := d.refresh()
		if d.ctx.Err() != nil {
			return
		}
		if err == nil {
			wait = d.c.Refresh - d.c.Refresh/10 + rand.N(d.c.Refresh/5+1)
		} else {
			d.log.WarnContext(d.ctx, "volumes of the cloud cannot be listed", slog.Any("error", err))
			wait = min(max(2*wait, time.Second), d.c.Refresh, 5*time.Minute)
		}
	}
}

func (d *driver) refresh() error {
	_, err := d.list(d.ctx, Query{})
	if err == nil {
		if serr := d.x.save(); serr != nil {
			d.log.WarnContext(d.ctx, "the volumes cannot be written down for the next start", slog.Any("error", serr))
		}
		d.reconcile()
	} else {
		err = fmt.Errorf("%s: %w", d.t.Scope, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return err
	}
	d.listErr = err
	if err == nil {
		d.listedAt = time.Now()
	}
	select {
	case <-d.listed:
	default:
		close(d.listed)
	}
	return err
}
