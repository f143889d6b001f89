package daemon

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// schedule has the schedules of the configuration in force run in the pools that there are. It
// is called while no others come and go.
func (d *Daemon) schedule() {
	if d.life.Err() != nil {
		return // else it would be in the way of the stop
	}
	conf := d.conf.Load().Schedules
	for _, s := range conf {
		d.metrics.runs.WithLabelValues(s.Name, result(nil)) // 0, and not nothing, before the first
	}
	var pools []schedule.Pool
	for _, p := range d.all() {
		pools = append(pools, scheduled{p})
	}
	d.schedules.Set(d.life, conf, pools)
}

// changed returns the names of the schedules that are new, different or gone, sorted.
func changed(old, next []schedule.Schedule) []string {
	was := map[string]schedule.Schedule{}
	for _, s := range old {
		was[s.Name] = s
	}
	var names []string
	for _, s := range next {
		if o, ok := was[s.Name]; !ok || !reflect.DeepEqual(o, s) {
			names = append(names, s.Name)
		}
		delete(was, s.Name)
	}
	names = slices.AppendSeq(names, maps.Keys(was))
	slices.Sort(names)
	return names
}

// scheduled is a pool as schedules see it.
type scheduled struct{ *pool }

var _ schedule.Pool = scheduled{}

// Name implements [schedule.Pool].
func (s scheduled) Name() string { return s.conf.Name }

// Able implements [schedule.Pool].
func (s scheduled) Able() bool { return volume.Can[volume.Snapshotter](s.handler) }

// Volumes implements [schedule.Pool].
func (s scheduled) Volumes() []schedule.Volume {
	var all []schedule.Volume
	for v, err := range s.handler.List(s.ctx) { // from memory
		if err != nil {
			break
		}
		if s.fills.word(s.conf.Name, v.Name) != "" {
			continue // it is not whole
		}
		all = append(all, schedule.Volume{Name: v.Name, CreatedAt: v.CreatedAt})
	}
	return all
}

// within does something in the pool, which ends when the pool does.
func (s scheduled) within(ctx context.Context, do func(context.Context) error) error {
	if !s.enter() {
		return schedule.ErrClosed
	}
	defer s.leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(schedule.ErrClosed) })() //nolint:contextcheck // it ends with either
	err := do(ctx)
	if err != nil && s.ctx.Err() != nil {
		return errdefs.As(schedule.ErrClosed, err)
	}
	return err
}

// Snapshots implements [schedule.Pool].
func (s scheduled) Snapshots(ctx context.Context, name string) (all []volume.Snapshot, err error) {
	err = s.within(ctx, func(ctx context.Context) error {
		all, err = s.handler.Snapshots(ctx, name)
		return err
	})
	return all, err
}

// CreateSnapshot implements [schedule.Pool].
func (s scheduled) CreateSnapshot(ctx context.Context, name string, labels map[string]string) error {
	return s.within(ctx, func(ctx context.Context) error {
		_, err := s.takeSnapshot(ctx, control.SnapshotCreateRequest{Volume: name, Labels: labels})
		return err
	})
}

// RemoveSnapshot implements [schedule.Pool].
func (s scheduled) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	return s.within(ctx, func(ctx context.Context) error { return s.handler.RemoveSnapshot(ctx, name, snapshot) })
}

// Schedules implements [control.Storage].
func (s storage) Schedules(context.Context) (control.ScheduleList, error) {
	var list control.ScheduleList
	for _, x := range s.d.schedules.Status() {
		c := control.Schedule{Name: x.Schedule.Name, Cron: x.Schedule.Cron.String(), Volumes: x.Volumes, Last: x.Last, Next: x.Next}
		if x.Error != nil {
			c.Error = errdefs.OneLine(x.Error.Error())
		}
		list.Schedules = append(list.Schedules, c)
	}
	return list, nil
}
