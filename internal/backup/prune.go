package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot/snapshotmaintenance"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Keep says how many backups of each volume are kept: the newest, and the newest of each of the
// last hours, days, weeks, months and years that have any.
type Keep struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
}

// Choice is a backup with the reasons for which it is kept; without any it goes.
type Choice struct {
	Backup
	Reasons []string
}

// early is how far beyond now a backup may have been begun and still counts: clocks differ.
const early = time.Minute

// Choose decides what is kept of all, for each volume of each host by itself. Days begin where
// the time zone of now has them. One from a time that has not come yet, from before the clock was
// set back, is kept and takes no other's place. It is ErrInvalid to keep nothing at all.
func Choose(all []Backup, k Keep, now time.Time) ([]Choice, error) {
	rules := []struct {
		name   string
		n      int
		period func(time.Time) string
	}{
		{"last", k.Last, nil},
		{"hourly", k.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15 -0700") }},
		{"daily", k.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{"weekly", k.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprintf("%d-%d", y, w) }},
		{"monthly", k.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{"yearly", k.Yearly, func(t time.Time) string { return t.Format("2006") }},
	}
	sum := 0
	for _, r := range rules {
		if r.n < 0 {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "keep %s: %d is less than nothing", r.name, r.n)
		}
		sum += r.n
	}
	if sum == 0 {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "nothing is to be kept")
	}
	type source struct{ host, pool, volume string }
	seen := map[source]map[string]int{}      // how many each rule keeps
	period := map[source]map[string]string{} // the last one of which a rule keeps one
	newest := slices.SortedFunc(slices.Values(all), func(a, b Backup) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(b.ID, a.ID))
	})
	choices := make([]Choice, 0, len(all))
	for _, b := range newest {
		src := source{b.Host, b.Pool, b.Volume}
		if seen[src] == nil {
			seen[src], period[src] = map[string]int{}, map[string]string{}
		}
		c := Choice{Backup: b}
		if b.Started.After(now.Add(early)) {
			c.Reasons = append(c.Reasons, "its time has not come")
			choices = append(choices, c)
			continue
		}
		for _, r := range rules {
			in := b.ID
			if r.period != nil {
				in = r.period(b.Started.In(now.Location()))
			}
			if seen[src][r.name] < r.n && period[src][r.name] != in {
				seen[src][r.name]++
				period[src][r.name] = in
				c.Reasons = append(c.Reasons, fmt.Sprintf("%s %d", r.name, seen[src][r.name]))
			}
		}
		choices = append(choices, c)
	}
	return choices, nil
}

// Maintain frees the room of what no backup needs any more. What was still in use a day ago
// stays, as another host may be about to use it again. Each repository has one host that does
// this; on another it is ErrDenied.
func (r *Repository) Maintain(ctx context.Context) error {
	return r.maintain(ctx, maintenance.SafetyFull)
}

func (r *Repository) maintain(ctx context.Context, safety maintenance.SafetyParameters) error {
	r.worn.Store(true)
	err := repo.DirectWriteSession(ctx, r.rep, repo.WriteSessionOptions{Purpose: "maintenance"}, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		if err := snapshotmaintenance.Run(ctx, w, maintenance.ModeFull, false, safety); err != nil {
			return err
		}
		_, err := copied{w.BlobStorage()}.complete(ctx, false, false) // older versions made none
		return err
	})
	if other, ok := errors.AsType[maintenance.NotOwnedError](err); ok {
		err = errdefs.Hint(errdefs.Errorf(errdefs.ErrDenied, "the host that keeps it in order is %s", strings.TrimPrefix(other.Owner, userName+"@")),
			"run it there; if that host is gone for good: remora backup prune --take-over")
	}
	return r.place.explain(err)
}

// TakeOver makes this host the one that keeps the repository in order.
func (r *Repository) TakeOver(ctx context.Context) error {
	err := r.direct(ctx, "take over", func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		params, err := maintenance.GetParams(ctx, w)
		if err != nil || params.Owner == w.ClientOptions().UsernameAtHost() {
			return err
		}
		params.Owner = w.ClientOptions().UsernameAtHost()
		return maintenance.SetParams(ctx, w, params)
	})
	return r.place.explain(err)
}
