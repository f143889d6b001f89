package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
)

// setTimes has the times of the directories in d set, which has been written, or of the one that
// is named. Kopia keeps these, but shows for a directory the time of the newest file anywhere below it.
func (r *Repository) setTimes(ctx context.Context, d kopiafs.Directory, only string, set func(name string, at time.Time) error) error {
	of, ok := d.(snapshot.HasDirEntry)
	if !ok {
		return fmt.Errorf("%s: %T has no entry", d.Name(), d)
	}
	f, err := r.rep.OpenObject(ctx, of.DirEntry().ObjectID)
	if err != nil {
		return err
	}
	defer f.Close()
	var all snapshot.DirManifest
	if err := json.NewDecoder(f).Decode(&all); err != nil {
		return fmt.Errorf("%s: %w", d.Name(), err)
	}
	for _, e := range all.Entries {
		if e.Type != snapshot.EntryTypeDirectory || only != "" && e.Name != only {
			continue
		}
		if err := set(e.Name, e.ModTime.ToTime()); err != nil {
			return err
		}
	}
	return nil
}
