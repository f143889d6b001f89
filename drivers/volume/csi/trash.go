package csi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/jobs"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Trash puts the record of a volume aside. At the storage it stays what it was, and costs what it did.
func (d *driver) Trash(ctx context.Context, name string) error {
	if _, err := d.get(name); err != nil {
		return err
	}
	return d.do(ctx, jobTrash, name, "", nil)
}

// trash is the job.
func (d *driver) trash(ctx context.Context, r *jobs.Run) error {
	v, free, err := d.turnOf(ctx, r.Object())
	if err != nil {
		return err
	}
	defer free()
	if rec, _ := d.store.see(v); rec.Phase == phaseNew || rec.Phase == phaseDeleting {
		facts, err := d.facts(ctx, r)
		if err != nil {
			return err
		}
		return d.delete(ctx, r, v, facts) // it is not whole
	}
	if bound, err := d.bound(v); bound || err != nil {
		return errors.Join(err, errdefs.Errorf(errdefs.ErrInUse, "it is mounted here"))
	}
	d.stayed(r.Object())
	if err := d.lower(ctx, r, v); err != nil {
		d.leave(r.Object(), retryDown)
		return err
	}
	return d.store.discard(v, fmt.Sprintf("%016x-%s", time.Now().UnixNano(), rand.Text()[:8]), now())
}

// discard brings a volume into the trash. After a crash half way it is there.
func (s *store) discard(v *vol, id string, at time.Time) error {
	r, _ := s.see(v)
	name := r.Name
	r.Trash, r.Trashed = id, at
	if err := state.Write(s.root, fileOf(dirTrash, id), recordVersion, r); err != nil {
		return err
	}
	if err := state.Remove(s.root, fileOf(dirVolumes, name)); err != nil {
		return errors.Join(err, state.Remove(s.root, fileOf(dirTrash, id)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in := newVol()
	in.rec = r
	s.trash[id] = in
	v.gone = true
	delete(s.volumes, name)
	return nil
}

// bring makes a volume again of what is in the trash. After a crash half way it is still there.
func (s *store) bring(v *vol, name string) error {
	r, _ := s.see(v)
	id := r.Trash
	r.Name, r.Trash, r.Trashed = name, "", time.Time{}
	out, err := s.begin(r)
	if err != nil {
		return err
	}
	if err := state.Remove(s.root, fileOf(dirTrash, id)); err != nil {
		return errors.Join(err, s.drop(out))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.gone = true
	delete(s.trash, id)
	return nil
}

// Trashed returns what is in the trash, the oldest first.
func (d *driver) Trashed(context.Context) ([]volume.Trashed, error) {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	var all []volume.Trashed
	for id, v := range d.store.trash {
		all = append(all, volume.Trashed{ID: id, Name: v.rec.Name, RemovedAt: v.rec.Trashed})
	}
	slices.SortFunc(all, func(a, b volume.Trashed) int { return a.RemovedAt.Compare(b.RemovedAt) })
	return all, nil
}

// trashed returns what has an ID in the trash, and its turn.
func (d *driver) trashed(ctx context.Context, id string) (*vol, func(), error) {
	d.store.mu.RLock()
	v, ok := d.store.trash[id]
	d.store.mu.RUnlock()
	if ok {
		free, err := v.take(ctx)
		if err != nil {
			return nil, nil, err
		}
		if !d.store.gone(v) {
			return v, free, nil
		}
		free()
	}
	return nil, nil, errdefs.Errorf(errdefs.ErrNotFound, "no such volume in the trash")
}

// Restore makes a volume again of what is in the trash.
func (d *driver) Restore(ctx context.Context, id, name string) error {
	v, free, err := d.trashed(ctx, id)
	if err != nil {
		return err
	}
	defer free()
	if r, _ := d.store.see(v); r.Phase != phaseCreated {
		return errdefs.Errorf(errdefs.ErrUnavailable, "it is being purged")
	}
	err = d.store.bring(v, name)
	if errors.Is(err, errdefs.ErrExists) {
		err = errdefs.Hint(err, "restore it under another name, or remove that one first")
	}
	return err
}

// Purge deletes what is in the trash.
func (d *driver) Purge(ctx context.Context, id string) error {
	_, free, err := d.trashed(ctx, id)
	if err != nil {
		return err
	}
	free()
	return d.do(ctx, jobRemove, inTrash+id, "", nil)
}

// inTrash begins the object of a job about what is in the trash. No name has a blank in it.
const inTrash = "trash "
