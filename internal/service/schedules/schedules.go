// Package schedules runs the schedules of the configuration in the pools that there are, and keeps
// which volumes ask for which.
package schedules

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/service/backups"
	"github.com/remora-plugins/remora/internal/service/fill"
	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/service/snapshot"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Service runs schedules.
type Service struct {
	Options
	*schedule.Engine
	wishes wishes
}

// Options are what the service stands on.
type Options struct {
	Pools     *pool.Set
	Backups   *backups.Service
	Snapshots snapshot.Taker
	Fills     *fill.Fills
	// Engines are those that may be asked for the labels of volumes.
	Engines func() []engine.Engine
	// Configured are the schedules of the configuration in force.
	Configured func() []schedule.Schedule
	StateDir   string
	Log        *slog.Logger
}

// New returns a service whose schedules e runs.
func New(o Options, e *schedule.Engine) *Service {
	return &Service{Options: o, Engine: e, wishes: wishes{dir: filepath.Join(o.StateDir, "schedules")}}
}

// Run has the schedules of the configuration in force run in the pools that there are, until ctx
// ends. It is called while no others come and go.
func (s *Service) Run(ctx context.Context) {
	var pools []schedule.Pool
	for _, p := range s.Pools.All() {
		pools = append(pools, s.In(p))
	}
	s.Set(ctx, s.Configured(), pools)
}

// In is a pool as schedules see it.
func (s *Service) In(p *pool.Pool) schedule.Pool { return scheduled{p, s} }

// Of returns the schedules that a volume asks for.
func (s *Service) Of(pool, name string) []string { return s.wishes.of(pool, name) }

// Schedules implements [control.Storage].
func (s *Service) Schedules(context.Context) (control.ScheduleList, error) {
	var list control.ScheduleList
	for _, x := range s.Status() {
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
