package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/restore"
)

// output writes directories with their own times. Kopia keeps these too, but shows for a
// directory the time of the newest file anywhere below it.
type output struct {
	restore.FilesystemOutput
	r *Repository
}

// FinishDirectory implements [restore.Output]. It is called when all in d is finished.
func (o *output) FinishDirectory(ctx context.Context, name string, d kopiafs.Directory) error {
	dir := filepath.Join(o.TargetPath, filepath.FromSlash(name))
	err := o.r.setTimes(ctx, d, "", func(child string, at time.Time) error { return os.Chtimes(filepath.Join(dir, child), at, at) })
	if err != nil {
		return err
	}
	return o.FilesystemOutput.FinishDirectory(ctx, name, d)
}

// BeginDirectory implements [restore.Output]. Unlike kopia's it takes no link for a directory.
func (o *output) BeginDirectory(_ context.Context, name string, d kopiafs.Directory) error {
	if err := simple(name, d); err != nil {
		return err
	}
	return target(name, mkdir(filepath.Join(o.TargetPath, filepath.FromSlash(name))))
}

// CreateSymlink implements [restore.Output].
func (o *output) CreateSymlink(ctx context.Context, name string, e kopiafs.Symlink) error {
	if err := simple(name, e); err != nil {
		return err
	}
	return target(name, o.FilesystemOutput.CreateSymlink(ctx, name, e))
}

// setTimes has the times of the directories in d set, which has been written, or of the one that
// is named.
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
