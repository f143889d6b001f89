package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// making is what a job must not forget that makes a disk.
type making struct {
	Spec Spec
	// Fresh: a disk that has the name already is an error, and not adopted.
	Fresh bool
	// Began is from when on tokens count, and Spent how many of them will not do.
	Began time.Time
	Spent int
	// ID is that of the disk, once it is known.
	ID string
}

// Create makes the disk, or adopts the one that has the name in the account.
func (d *driver) Create(ctx context.Context, name string, opts map[string]string) error {
	a, err := d.t.decode(opts)
	if err != nil {
		return err
	}
	s, err := d.spec(name, a)
	if err != nil {
		return err
	}
	return d.do(ctx, jobCreate, name, "", making{Spec: s})
}

// spec makes of options what is to be made.
func (d *driver) spec(name string, a asked) (Spec, error) {
	s := Spec{Size: int64(d.c.Size), Encrypted: a.Encrypted, Extra: a.extra, Tags: Tags{
		TagNamespace: d.c.Namespace, TagName: name,
	}}
	fill(&s.Type, a.Type)
	fill(&s.IOPS, a.IOPS)
	fill(&s.Throughput, a.Throughput)
	fill(&s.Zone, a.Zone)
	fill(&s.KMSKey, a.KMSKey)
	if a.Size != nil {
		s.Size = int64(*a.Size)
	}
	fs := d.c.FS
	fill(&fs, a.FS)
	if a.Snapshot != nil {
		s.Snapshot = &Snapshot{ID: *a.Snapshot}
		if a.Size == nil {
			s.Size = 0
		}
		s.Tags[tagFrom], s.Tags[tagFormatted], s.Tags[tagRoot] = *a.Snapshot, now(), rootAuto
		if a.FS != nil {
			s.Tags[tagFS] = fs
		}
	} else {
		s.Tags[tagFS] = fs
		if min := kinds[fs].Min; s.Size < min {
			return s, errdefs.Errorf(errdefs.ErrInvalid, "size %s: below the %s that %s needs", catalog.Bytes(s.Size), catalog.Bytes(min), fs)
		}
	}
	for _, o := range a.Mount {
		k, ok := kinds[fs]
		if a.Snapshot != nil && a.FS == nil {
			ok = false // it is not known yet which
		}
		if ok && !k.Takes(o) || !ok && !slices.ContainsFunc(slices.Collect(maps.Values(kinds)), func(k kind) bool { return k.Takes(o) }) {
			return s, errdefs.Errorf(errdefs.ErrInvalid, `option "mount_options": %q is not allowed for %s`, o, fs)
		}
	}
	for k, v := range a.plain {
		if v != "" {
			s.Tags[option+k] = v
		}
	}
	return s, d.check(&s)
}

func fill[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (d *driver) check(s *Spec) (err error) {
	if err := s.Tags.fit(); err != nil {
		return err
	}
	if s.Size > 0 || s.Snapshot == nil {
		if s.Size, err = d.t.round(s.Size); err != nil {
			return err
		}
	}
	if d.t.Check != nil {
		return d.t.Check(s)
	}
	return nil
}

// create is the job: look whether the name is there, make the disk, and look whether another host
// has made one at the same time.
func (d *driver) create(ctx context.Context, r *jobs.Run) error {
	var m making
	if err := r.Load(&m); err != nil {
		return err
	}
	name := r.Object()
	if m.ID == "" && m.Spec.UUID == "" {
		there, err := d.fresh(ctx, r, name)
		if err == nil {
			return d.adopt(there, m)
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		m.Began = time.Now()
		m.Spent = d.spentOf(name, m.Began)
	}
	made, err := d.make(ctx, r, &m, func(spent int) string { return token(d.c.Namespace, name, m.Began, spent) })
	if err != nil {
		return err
	}
	if err := d.ready(ctx, r, made, true); errors.Is(err, errGivenWay) {
		d.x.drop(made.ID)
		if won, ok := d.x.volume(name); ok {
			return d.adopt(won, m)
		}
		return errdefs.As(errdefs.ErrUnavailable, err)
	} else if err != nil {
		return err
	}
	won, ok := d.x.volume(name)
	if !ok || won.ID == made.ID {
		d.clearSurplus(name)
		return nil
	}
	// A third host may have taken ours for the volume, and begun to use it.
	if made, err = d.again(ctx, r, made); err != nil {
		return err
	}
	if won, ok = d.x.volume(name); ok && (won.ID == made.ID || made.Tags[tagFormatted] != "" || len(made.Holders) > 0) {
		return nil
	}
	d.log.InfoContext(ctx, "another host has made the volume at the same time; its disk is the volume", slog.String("volume", name), slog.String("disk", won.ID))
	if err := d.destroy(ctx, r, made); err != nil {
		return err
	}
	return d.adopt(won, m)
}

// spent is how many tokens of a name this host has seen to be spent, in a window.
type spent struct{ window, n int64 }

func (d *driver) spentOf(name string, at time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, s := range d.spent { // of windows that have ended
		if s.window != windowOf(at) {
			delete(d.spent, name)
		}
	}
	return int(d.spent[name].n)
}

func (d *driver) spend(name string, at time.Time, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spent[name] = spent{windowOf(at), int64(n)}
}

// make makes the disk of m, whose step is written down before. tokens gives the UUIDs to try.
func (d *driver) make(ctx context.Context, r *jobs.Run, m *making, tokens func(spent int) string) (Disk, error) {
	first := m.Spent
	for ; ; m.Spent++ {
		if m.Spec.UUID == "" {
			m.Spec.UUID = tokens(m.Spent)
			m.Spec.Tags[TagUUID] = m.Spec.UUID
			if err := r.Step("making the disk", m); err != nil {
				return Disk{}, err
			}
		}
		made, err := again(ctx, r, func(ctx context.Context) (Disk, error) { return d.p.Create(ctx, m.Spec) })
		switch {
		case err == nil && made.State != Deleting && made.Tags[TagName] == m.Spec.Tags[TagName] && made.Tags[tagTrashed] == "":
			m.ID = made.ID
			d.x.put(made)
			d.spend(made.Tags[TagName], m.Began, m.Spent+1)
			return made, r.Step("waiting for the disk", m)
		case err != nil && !errors.Is(err, errdefs.ErrExists):
			return Disk{}, err
		case m.Spent-first == maxSpent:
			return Disk{}, errdefs.Errorf(errdefs.ErrUnavailable, "%d disks of this name were made and removed within a minute", maxSpent)
		}
		m.Spec.UUID = ""
	}
}

// maxSpent is how many tokens are tried.
const maxSpent = 50

// appear is how long a new disk may be missing in lists.
const appear = time.Minute

// ready waits until a new disk is there for all. seen has it be seen in a list at least once,
// with all others of its name.
func (d *driver) ready(ctx context.Context, r *jobs.Run, disk Disk, seen bool) error {
	if disk.State == Ready && !seen {
		return nil
	}
	name, began := disk.Tags[TagName], time.Now()
	for wait := d.t.Poll; ; wait = min(wait*3/2, lastPoll) {
		var list []Disk
		_, err := again(ctx, r, just(func(ctx context.Context) error {
			var err error
			list, err = d.list(ctx, Query{Names: []string{name}})
			return err
		}))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(o Disk) bool { return o.ID == disk.ID })
		if (i < 0 && time.Since(began) > behind || i >= 0 && list[i].State == Deleting) && live(disk) &&
			slices.ContainsFunc(list, func(o Disk) bool { return o.ID != disk.ID && o.State == Ready && live(o) && o.Tags[TagName] == name }) {
			return errGivenWay
		}
		if i >= 0 {
			switch list[i].State {
			case Ready:
				return nil
			case Failed, Deleting:
				reason := list[i].Reason
				if err := d.destroy(ctx, r, list[i]); err != nil {
					d.log.WarnContext(ctx, "a disk that could not be made cannot be deleted", slog.String("disk", disk.ID), slog.Any("error", err))
				}
				return unmade(reason)
			}
		} else if time.Since(began) > appear {
			return errdefs.Errorf(errdefs.ErrUnavailable, "the cloud has made the disk %s, and does not list it", disk.ID)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// errGivenWay is that a disk was deleted while it was made, by a host that had found another of its name.
var errGivenWay = errors.New("another host has made the volume")

// unmade is the error of a disk that the cloud began to make, and could not.
func unmade(reason string) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "the cloud could not make the disk: %s", reason),
		"put right what it says, and make the volume again; where it says nothing of use, look at the disks in the cloud's console")
}

// adopt compares what is there with what is asked for.
func (d *driver) adopt(there Disk, m making) error {
	if m.Fresh {
		return errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name%s", inZone(there))
	}
	for _, key := range []string{"fs", "type", "zone"} {
		want, ok := m.Spec.Tags[option+key]
		is := map[string]string{"fs": there.Tags[tagFS], "type": there.Type, "zone": there.Zone}[key]
		if ok && is != "" && is != want {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name whose %s is %s, not %s", key, is, want),
				"leave the option out to use that volume, or take another name")
		}
	}
	return nil
}

func inZone(d Disk) string {
	if d.Zone == "" {
		return ""
	}
	return " in " + d.Zone
}

// destroy deletes a disk for good. The cloud may take a while to see that it was detached; where
// another host has it, it is ErrInUse.
func (d *driver) destroy(ctx context.Context, r *jobs.Run, disk Disk) error {
	self, _ := d.me()
	began := time.Now()
	var err error
	for wait := d.t.Poll; ; wait = min(wait*3/2, lastPoll) {
		_, err = again(ctx, r, just(func(ctx context.Context) error { return d.p.Delete(ctx, disk) }))
		if !errors.Is(err, errdefs.ErrInUse) || time.Since(began) > appear {
			break
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errdefs.As(errdefs.ErrUnavailable, context.Cause(ctx))
		}
		now, aerr := d.again(ctx, r, disk)
		if aerr != nil && !errors.Is(aerr, errdefs.ErrNotFound) {
			return aerr
		}
		for _, h := range now.Holders {
			switch {
			case h.State != Attached:
			case h.Host != self.ID:
				return d.held(h)
			default: // what was remembered is older than that
				if err := d.release(ctx, r, now); err != nil {
					return err
				}
			}
		}
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("delete the disk %s: %w", disk.ID, err)
	}
	d.x.drop(disk.ID)
	return nil
}
