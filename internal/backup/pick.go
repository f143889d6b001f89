package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Wanted says which backup is meant.
type Wanted struct {
	// Of is the beginning of an ID, or the name of a volume, of which it is the newest.
	Of string
	// At, if it is not zero, is the time at which the backup has to have been begun, or before.
	At time.Time
	// Pool is the one that is meant where volumes of several pools have the name.
	Pool string
}

// Pick returns the backup that is meant. Of a volume with backups by several hosts those of
// this one are meant.
func (r *Repository) Pick(ctx context.Context, w Wanted) (Backup, error) {
	all, err := r.List(ctx)
	if err != nil {
		return Backup{}, err
	}
	b, err := pick(all, r.place.Host, w)
	return b, r.place.explain(err)
}

// pick is Pick of backups, the oldest first.
func pick(all []Backup, host string, w Wanted) (Backup, error) {
	byName, err := ofVolume(all, host, w)
	if err != nil {
		return Backup{}, err
	}
	byID, err := ofID(all, w.Of)
	switch {
	case err != nil && len(byName) == 0:
		return Backup{}, err
	case err == nil && len(byName) > 0:
		return Backup{}, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "%q is a volume, and the beginning of an ID", w.Of), "for the backup, give more of its ID")
	case err == nil && !w.At.IsZero():
		return Backup{}, errdefs.Errorf(errdefs.ErrInvalid, "%q is a backup: with a time, name a volume", w.Of)
	case err == nil:
		return byID, nil
	case w.At.IsZero():
		return byName[len(byName)-1], nil
	}
	for _, b := range slices.Backward(byName) {
		if !b.Started.After(w.At) {
			return b, nil
		}
	}
	return Backup{}, errdefs.Errorf(errdefs.ErrNotFound, "volume %q: no backup from before %s; the oldest is of %s", w.Of,
		w.At.Local().Format(time.DateTime), byName[0].Started.Local().Format(time.DateTime))
}

// ofVolume returns the backups of the volume that is meant, if it is one.
func ofVolume(all []Backup, host string, w Wanted) ([]Backup, error) {
	hosts := map[string]bool{}
	found := slices.DeleteFunc(slices.Clone(all), func(b Backup) bool {
		other := b.Volume != w.Of
		if !other {
			hosts[b.Host] = true
		}
		return other
	})
	if !hosts[host] && len(hosts) > 1 {
		return nil, several(w.Of, "hosts", hosts)
	}
	pools := map[string]bool{}
	found = slices.DeleteFunc(found, func(b Backup) bool {
		other := hosts[host] && b.Host != host
		if !other {
			pools[b.Pool] = true
		}
		return other
	})
	if len(pools) > 1 && pools[w.Pool] {
		return slices.DeleteFunc(found, func(b Backup) bool { return b.Pool != w.Pool }), nil
	}
	if len(pools) > 1 {
		return nil, several(w.Of, "pools", pools)
	}
	return found, nil
}

func several(name, what string, all map[string]bool) error {
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "volume %q: there are backups of several %s: %s", name, what,
		strings.Join(slices.Sorted(maps.Keys(all)), ", ")), "remora backup ls "+name+", and give the ID of one")
}

// ofID returns the backup whose ID begins so. Where it is none the error says what would be one.
func ofID(all []Backup, id string) (found Backup, err error) {
	err = errdefs.Errorf(errdefs.ErrNotFound, "%q: no backup has this ID, and none is of a volume of this name", id)
	if len(id) < leastID {
		return found, err
	}
	for _, b := range all {
		switch {
		case !strings.HasPrefix(b.ID, id):
		case found.ID != "":
			return Backup{}, fmt.Errorf("%w: more than one begins with %q", errdefs.ErrInvalid, id)
		default:
			found, err = b, nil
		}
	}
	return found, err
}
