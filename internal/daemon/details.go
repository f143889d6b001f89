package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// detailTime is how long a list waits for what drivers know of single volumes, in all.
const detailTime = 1500 * time.Millisecond

// askers is how many calls for such details a pool makes at a time, whoever asks: on storage
// that hangs each may hold a thread.
const askers = 4

// detail is what a driver knows of one volume.
type detail struct {
	used      *int64
	limit     int64
	uncounted bool // the driver does not know the size of this one
	snapshots *int
	unknown   []string
	done      bool
}

// details adds to volumes of the pool how large they are and how many snapshots they have, as
// far as that is known before ctx ends.
func (p *pool) details(ctx context.Context, all []*control.Volume) {
	sizer, snapshotter := volume.Can[volume.Sizer](p.handler), volume.Can[volume.Snapshotter](p.handler)
	if !sizer {
		for _, v := range all {
			p.remembered(v)
		}
	}
	if !sizer && !snapshotter {
		return
	}
	var mu sync.Mutex
	next, found := 0, make([]detail, len(all))
	if len(all) > 1 && volume.Can[volume.Surveyor](p.handler) {
		p.survey(ctx, all, found, sizer)
	}
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		for next < len(all) && found[next].done {
			next++
		}
		if next == len(all) || ctx.Err() != nil {
			return -1
		}
		next++
		return next - 1
	}
	var wg sync.WaitGroup
	for range min(askers, len(all)) {
		wg.Add(1)
		work := func() {
			defer wg.Done()
			for i := take(); i >= 0; i = take() {
				d := p.detail(all[i].Name, sizer, snapshotter)
				mu.Lock()
				found[i] = d
				mu.Unlock()
			}
		}
		if !p.asker(ctx, work) {
			wg.Done()
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	for i, v := range all {
		v.Unknown = append(v.Unknown, found[i].unknown...)
		if found[i].used != nil {
			v.Used, v.Limit = found[i].used, found[i].limit
		}
		if found[i].uncounted {
			p.remembered(v)
		}
		v.Snapshots = found[i].snapshots
		if found[i].done {
			continue
		}
		if sizer {
			v.Unknown = append(v.Unknown, "Used", "Limit")
		}
		if snapshotter {
			v.Unknown = append(v.Unknown, "Snapshots")
		}
	}
}

// survey fills in what the driver tells of many volumes at once. Those that it leaves out are
// asked for by themselves.
func (p *pool) survey(ctx context.Context, all []*control.Volume, found []detail, sizer bool) {
	type answer struct {
		figures map[string]volume.Figures
		nothing bool // is known of any
	}
	told := make(chan answer, 1)
	if !p.asker(ctx, func() {
		figures, err := p.handler.Survey(p.ctx) // what it does not tell is asked for
		told <- answer{figures, errors.Is(err, errdefs.ErrUnsupported)}
	}) {
		return
	}
	select {
	case a := <-told:
		for i, v := range all {
			f, ok := a.figures[v.Name]
			if !ok {
				found[i] = detail{uncounted: sizer && a.nothing, done: a.nothing}
				continue
			}
			found[i] = detail{snapshots: f.Snapshots, uncounted: sizer && f.Usage == nil, done: true}
			if f.Usage != nil {
				found[i].used, found[i].limit = &f.Usage.Used, f.Usage.Limit
			}
		}
	case <-ctx.Done():
	}
}

// asker runs work beside the caller, as one of few and as part of the pool's life. It tells
// whether it does.
func (p *pool) asker(ctx context.Context, work func()) bool {
	select {
	case p.asking <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if !p.enter() {
		<-p.asking
		return false
	}
	go func() {
		defer p.leave()
		defer func() { <-p.asking }()
		work()
	}()
	return true
}

// detail asks the driver about one volume, and waits as long as the Handler does.
func (p *pool) detail(name string, sizer, snapshotter bool) detail {
	d := detail{done: true}
	if sizer {
		u, err := p.handler.Usage(p.ctx, name)
		switch {
		case err == nil:
			d.used, d.limit = &u.Used, u.Limit
		case errors.Is(err, errdefs.ErrUnsupported):
			d.uncounted = true
		default:
			d.unknown = append(d.unknown, "Used", "Limit")
		}
	}
	if snapshotter {
		all, err := p.handler.Snapshots(p.ctx, name)
		switch n := len(all); {
		case err == nil:
			d.snapshots = &n
		case !errors.Is(err, errdefs.ErrUnsupported):
			d.unknown = append(d.unknown, "Snapshots")
		}
	}
	return d
}

// remembered adds what is remembered of the size of a volume whose driver does not know it.
// Files are counted for it only where they lie on this host at all times: what is mounted may
// be on another.
func (p *pool) remembered(v *control.Volume) {
	if v.Mountpoint == "" || strings.HasPrefix(v.Mountpoint, p.mountRoot+string(filepath.Separator)) {
		return
	}
	used, at, err := p.usage.Get(v.Name, v.CreatedAt.String(), v.Mountpoint)
	if err != nil {
		if !errors.Is(err, errdefs.ErrUnsupported) {
			v.Unknown = append(v.Unknown, "Used")
		}
		return
	}
	v.Used, v.UsedAt = &used, at.UTC().Truncate(time.Second)
}

// addDetails adds details to the volumes of many pools, which are asked at the same time.
func addDetails(ctx context.Context, all map[*pool][]*control.Volume) {
	ctx, cancel := context.WithTimeout(ctx, detailTime)
	defer cancel()
	var wg sync.WaitGroup
	for p, volumes := range all {
		wg.Go(func() { p.details(ctx, volumes) })
	}
	wg.Wait()
}
