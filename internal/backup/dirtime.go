package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

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

// BeginDirectory implements [restore.Output].
func (o *output) BeginDirectory(ctx context.Context, name string, d kopiafs.Directory) error {
	return target(name, o.FilesystemOutput.BeginDirectory(ctx, name, d))
}

// CreateSymlink implements [restore.Output].
func (o *output) CreateSymlink(ctx context.Context, name string, l kopiafs.Symlink) error {
	return target(name, o.FilesystemOutput.CreateSymlink(ctx, name, l))
}

// FinishDirectory implements [restore.Output]. It is called when all in d is finished.
func (o *output) FinishDirectory(ctx context.Context, name string, d kopiafs.Directory) error {
	if err := o.r.setTimes(ctx, d, filepath.Join(o.TargetPath, filepath.FromSlash(name)), ""); err != nil {
		return err
	}
	return o.FilesystemOutput.FinishDirectory(ctx, name, d)
}

// setTimes sets the times of the directories in d, which has been written to dir, or of the
// one that is named.
func (r *Repository) setTimes(ctx context.Context, d kopiafs.Directory, dir, only string) error {
	of, ok := d.(snapshot.HasDirEntry)
	if !ok {
		return fmt.Errorf("%s: %T has no entry", dir, d)
	}
	f, err := r.rep.OpenObject(ctx, of.DirEntry().ObjectID)
	if err != nil {
		return err
	}
	defer f.Close()
	var all snapshot.DirManifest
	if err := json.NewDecoder(f).Decode(&all); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, e := range all.Entries {
		if e.Type != snapshot.EntryTypeDirectory || only != "" && e.Name != only {
			continue
		}
		if err := os.Chtimes(filepath.Join(dir, e.Name), e.ModTime.ToTime(), e.ModTime.ToTime()); err != nil {
			return err
		}
	}
	return nil
}
