package daemon

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
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
		pools = append(pools, scheduled{p, d})
	}
	d.schedules.Set(d.life, conf, pools)
}

// changed returns the names of those that are new, different or gone, sorted.
func changed[T any](old, next []T, name func(T) string) []string {
	was := map[string]T{}
	for _, s := range old {
		was[name(s)] = s
	}
	var names []string
	for _, s := range next {
		if o, ok := was[name(s)]; !ok || !reflect.DeepEqual(o, s) {
			names = append(names, name(s))
		}
		delete(was, name(s))
	}
	names = slices.AppendSeq(names, maps.Keys(was))
	slices.Sort(names)
	return names
}

// Schedules implements [control.Storage].
func (s storage) Schedules(context.Context) (control.ScheduleList, error) {
	var list control.ScheduleList
	for _, x := range s.d.schedules.Status() {
		c := control.Schedule{
			Name: x.Schedule.Name, Cron: x.Schedule.Cron.String(), Volumes: x.Volumes, Last: x.Last, Next: x.Next, Error: said(x.Error),
		}
		for _, t := range x.Schedule.Does() {
			c.Tasks = append(c.Tasks, t.String())
		}
		for _, r := range x.Runs {
			run := control.ScheduleRun{
				Pool: r.Pool, Volume: r.Volume, Task: r.Task.String(), Running: r.Running, Last: r.Last, Next: r.Next, Error: said(r.Error),
			}
			if run.Error != "" {
				c.Failed++
			}
			c.Runs = append(c.Runs, run)
		}
		list.Schedules = append(list.Schedules, c)
	}
	return list, nil
}

// said is an error as one line, and nothing where there is none.
func said(err error) string {
	if err == nil {
		return ""
	}
	return errdefs.OneLine(err.Error())
}
