package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// free sees that no other host has the disk, and that it is not on its way off this one.
func (d *driver) free(ctx context.Context, r *jobs.Run, disk *Disk, self Host, until time.Time, force bool) error {
	for wait := d.t.Poll; ; wait = min(wait*3/2, lastPoll) {
		i := slices.IndexFunc(disk.Holders, func(h Holder) bool { return h.Host != self.ID || h.State == Detaching })
		if i < 0 {
			return nil
		}
		h := disk.Holders[i]
		if h.Host != self.ID && (h.State != Detaching || force) {
			take, how, err := d.mayTake(ctx, h, force)
			if err != nil {
				return err
			}
			if take {
				if err := d.take(ctx, r, disk, h, how); err != nil {
					return err
				}
				continue
			}
		}
		if time.Now().After(until) && h.State != Detaching {
			return d.held(h)
		}
		if err := r.Step("waiting for "+h.Host+" to let go of the disk", nil); err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
		var err error
		if *disk, err = d.again(ctx, r, *disk); err != nil {
			return err
		}
	}
}

// held says who has the disk.
func (d *driver) held(h Holder) error {
	since := ""
	if !h.Since.IsZero() {
		since = fmt.Sprintf(" since %s (%s)", h.Since.UTC().Format(time.RFC3339), max(time.Since(h.Since), 0).Round(time.Second))
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "%s to host %s%s", h.State, h.Host, since),
		"stop the container that uses it there; where that host is gone for good, remora volume attach --force takes the disk from it")
}

// mayTake tells whether the disk may be taken from a host, and why.
func (d *driver) mayTake(ctx context.Context, h Holder, force bool) (take bool, why string, err error) {
	switch {
	case force:
		return true, "it was asked for by force", nil
	case d.c.Preempt == "always":
		return true, "the pool takes disks from other hosts (preempt)", nil
	case d.c.Preempt != "dead":
		return false, "", nil
	}
	p, ok := d.p.(Prober)
	if !ok {
		return false, "", nil
	}
	gone, err := call(ctx, func(ctx context.Context) (bool, error) { return p.Gone(ctx, h.Host) })
	if err != nil {
		return false, "", fmt.Errorf("whether host %s is gone cannot be found out: %w", h.Host, err)
	}
	return gone, "the cloud says that the host is stopped or gone", nil
}

// take takes the disk from another host.
func (d *driver) take(ctx context.Context, r *jobs.Run, disk *Disk, h Holder, why string) error {
	if err := r.Step("taking the disk from "+h.Host, nil); err != nil {
		return err
	}
	d.log.WarnContext(ctx, "the disk is taken from another host", slog.String("volume", r.Object()), slog.String("disk", disk.ID),
		slog.String("host", h.Host), slog.Time("since", h.Since), slog.String("reason", why))
	_, err := again(ctx, r, just(func(ctx context.Context) error { return d.p.Detach(ctx, *disk, h.Host, true) }))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("take the disk from host %s: %w", h.Host, err)
	}
	limit, cancel := context.WithTimeoutCause(ctx, takeLimit, errdefs.Errorf(errdefs.ErrUnavailable, "host %s has not let go of the disk within %s", h.Host, takeLimit))
	defer cancel()
	return d.await(limit, disk.ID, 0, func(now Disk, there bool) (bool, error) {
		if !there {
			return false, nil
		}
		disk.Holders, disk.State, disk.Facts = now.Holders, now.State, now.Facts
		return holder(now, h.Host) < 0, nil
	})
}

const takeLimit = 10 * time.Minute
