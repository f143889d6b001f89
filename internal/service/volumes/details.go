package volumes

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// detailTime is how long a list waits for what drivers know of single volumes, in all.
const detailTime = 1500 * time.Millisecond

// detail is what a driver knows of one volume.
type detail struct {
	used      *int64
	limit     int64
	uncounted bool // the driver does not know the size of this one
	snapshots *int
	unknown   []string
	done      bool
}

// size takes over what the driver tells, which may be the limit alone.
func (d *detail) size(u volume.Usage) {
	d.limit = u.Limit
	if u.Used != volume.Unknown {
		d.used = &u.Used
	}
}

// details adds to volumes of the pool how large they are and how many snapshots they have, as
// far as that is known before ctx ends.
func details(ctx context.Context, p *pool.Pool, all []*control.Volume) {
	sizer, snapshotter := volume.Can[volume.Sizer](p.Handler), volume.Can[volume.Snapshotter](p.Handler)
	if !sizer {
		for _, v := range all {
			remembered(p, v)
		}
	}
	if !sizer && !snapshotter {
		return
	}
	found := make([]detail, len(all))
	if len(all) > 1 && volume.Can[volume.Surveyor](p.Handler) {
		survey(ctx, p, all, found, sizer)
	}
	var open []int
	for i, d := range found {
		if !d.done {
			open = append(open, i)
		}
	}
	//nolint:contextcheck // a call may outlast the caller
	for n, d := range pool.Ask(ctx, p, len(open), func(n int) detail { return detailOf(p, all[open[n]].Name, sizer, snapshotter) }) {
		found[open[n]] = d
	}
	for i, v := range all {
		v.Unknown = append(v.Unknown, found[i].unknown...)
		if found[i].used != nil || found[i].limit > 0 {
			v.Used, v.Limit = found[i].used, found[i].limit
		}
		if found[i].uncounted {
			remembered(p, v)
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
func survey(ctx context.Context, p *pool.Pool, all []*control.Volume, found []detail, sizer bool) {
	type answer struct {
		figures map[string]volume.Figures
		nothing bool // is known of any
	}
	told := make(chan answer, 1)
	if !p.Beside(ctx, func() { //nolint:contextcheck // likewise
		figures, err := p.Handler.Survey(p.Context()) // what it does not tell is asked for
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
				found[i].size(*f.Usage)
			}
		}
	case <-ctx.Done():
	}
}

// detailOf asks the driver about one volume, and waits as long as the Handler does.
func detailOf(p *pool.Pool, name string, sizer, snapshotter bool) detail {
	d := detail{done: true}
	if sizer {
		u, err := p.Handler.Usage(p.Context(), name)
		switch {
		case err == nil:
			d.size(u)
		case errors.Is(err, errdefs.ErrUnsupported):
			d.uncounted = true
		default:
			d.unknown = append(d.unknown, "Used", "Limit")
		}
	}
	if snapshotter {
		all, err := p.Handler.Snapshots(p.Context(), name)
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
func remembered(p *pool.Pool, v *control.Volume) {
	if v.Mountpoint == "" || strings.HasPrefix(v.Mountpoint, p.MountRoot+string(filepath.Separator)) {
		return
	}
	used, at, err := p.Usage.Get(v.Name, v.CreatedAt.String(), v.Mountpoint)
	if err != nil {
		if !errors.Is(err, errdefs.ErrUnsupported) {
			v.Unknown = append(v.Unknown, "Used")
		}
		return
	}
	v.Used, v.UsedAt = &used, at.UTC().Truncate(time.Second)
}

// addDetails adds details to the volumes of many pools, which are asked at the same time.
func addDetails(ctx context.Context, all map[*pool.Pool][]*control.Volume) {
	ctx, cancel := context.WithTimeout(ctx, detailTime)
	defer cancel()
	var wg sync.WaitGroup
	for p, volumes := range all {
		wg.Go(func() { details(ctx, p, volumes) })
	}
	wg.Wait()
}
