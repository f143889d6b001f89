package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// backups looks whether the repositories can be read, what came of the schedules, and which
// backups were not shown to be good.
func (d *doctor) backups(ctx context.Context) {
	if d.status == nil || d.status.ConfigError != "" {
		return
	}
	d.repositories(ctx)
	d.schedules(ctx)
	for _, p := range d.status.Proofs {
		if p.Error != "" {
			d.warn("repository "+p.Repository, fmt.Sprintf("volume %q: its backup is not shown to be good: %s", p.Volume, p.Error),
				fmt.Sprintf("then: remora backup verify --repo %s --restore %s", p.Repository, p.Volume))
		}
	}
}

// repositories asks all of them at the same time: each may be a server that does not answer.
func (d *doctor) repositories(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	said := make([]error, len(d.conf.Repositories))
	counts := make([]int, len(d.conf.Repositories))
	var wg sync.WaitGroup
	for i, r := range d.conf.Repositories {
		wg.Go(func() {
			all, err := d.client.Backups().List(ctx, control.BackupListRequest{Repository: r.Name})
			counts[i], said[i] = len(all), err
		})
	}
	wg.Wait()
	for i, r := range d.conf.Repositories {
		check, err := "repository "+r.Name, said[i]
		switch {
		case err == nil:
			d.ok(check, fmt.Sprintf("%d backups", counts[i]))
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
			d.warn(check, fmt.Sprintf("has not answered within %s", doctorTime), "remora backup ls --repo "+r.Name)
		default:
			mend := strings.Join(errdefs.Hints(err), "; ")
			if mend == "" && errors.Is(err, errdefs.ErrNotFound) {
				mend = "remora reload"
			}
			d.fail(check, strings.TrimPrefix(err.Error(), fmt.Sprintf("repository %q: ", r.Name)), mend)
		}
	}
}

func (d *doctor) schedules(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	list, err := d.client.Storage().Schedules(ctx)
	if err != nil {
		d.warn("schedules", err.Error(), "")
		return
	}
	for _, s := range list.Schedules {
		check := "schedule " + s.Name
		switch {
		case s.Error != "":
			d.warn(check, s.Error, "remora schedule ls --volumes shows of which volumes")
		case s.Volumes == 0:
			d.warn(check, "is for no volume that there is", "look at its pools and volumes, or have a volume ask for it: remora volume create --schedule "+s.Name+" NAME")
		default:
			d.ok(check, fmt.Sprintf("%d volumes, %s", s.Volumes, strings.Join(s.Tasks, ", ")))
		}
	}
}
