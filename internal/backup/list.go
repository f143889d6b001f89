package backup

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// manifests returns all backups of Remora that are whole.
func (r *Repository) manifests(ctx context.Context) ([]*snapshot.Manifest, error) {
	ids, err := snapshot.ListSnapshotManifests(ctx, r.rep, nil, nil)
	if err != nil {
		return nil, err
	}
	all, err := snapshot.LoadSnapshots(ctx, r.rep, ids)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(m *snapshot.Manifest) bool {
		return m == nil || m.IncompleteReason != "" || m.Source.UserName != userName
	}), nil
}

// List returns the backups of all hosts, the oldest first.
func (r *Repository) List(ctx context.Context) ([]Backup, error) {
	all, err := r.manifests(ctx)
	if err != nil {
		return nil, r.place.explain(err)
	}
	backups := make([]Backup, 0, len(all))
	for _, m := range all {
		backups = append(backups, toBackup(m))
	}
	slices.SortFunc(backups, func(a, b Backup) int {
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
	})
	return backups, nil
}

// leastID is how many letters of an ID will do.
const leastID = 4

// find returns the backup whose ID begins so.
func (r *Repository) find(ctx context.Context, id string) (*snapshot.Manifest, error) {
	wrong := func(class error, text string) error { return errdefs.Errorf(class, "backup %q: %s", id, text) }
	if len(id) < leastID {
		return nil, wrong(errdefs.ErrInvalid, "want four letters of its ID at least")
	}
	all, err := r.manifests(ctx)
	if err != nil {
		return nil, err
	}
	var found *snapshot.Manifest
	for _, m := range all {
		switch {
		case !strings.HasPrefix(string(m.ID), id):
		case found != nil:
			return nil, wrong(errdefs.ErrInvalid, "more than one begins so")
		default:
			found = m
		}
	}
	if found == nil {
		return nil, wrong(errdefs.ErrNotFound, "no such backup")
	}
	return found, nil
}

// Inspect returns the backup whose ID begins with id.
func (r *Repository) Inspect(ctx context.Context, id string) (Backup, error) {
	m, err := r.find(ctx, id)
	if err != nil {
		return Backup{}, r.place.explain(err)
	}
	return toBackup(m), nil
}

// Remove forgets backups by their IDs. The room that they took is free some time after
// [Repository.Maintain].
func (r *Repository) Remove(ctx context.Context, ids ...string) error {
	err := repo.WriteSession(ctx, r.rep, repo.WriteSessionOptions{Purpose: "remove"}, func(ctx context.Context, w repo.RepositoryWriter) error {
		for _, id := range ids {
			m, err := r.find(ctx, id)
			if err != nil {
				return err
			}
			if err := w.DeleteManifest(ctx, m.ID); err != nil && !errors.Is(err, manifest.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	return r.place.explain(err)
}
