package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/sharded"
	"github.com/kopia/kopia/repo/format"

	"github.com/remora-plugins/remora/internal/config"
)

// layout is what the file sharded.ParametersFile of a repository in a directory says that [Init]
// made: in which directories blobs lie. Without it, or with another, nothing is found.
const layout = `{"default":[1,3],"maxNonShardedLength":20}` + "\n"

// layoutShards is the same in kopia's words.
var layoutShards = []int{1, 3}

// errLayout is for a layout that is not the one by which the directories were made.
var errLayout = errors.New("the layout is damaged")

// layoutOf looks at the layout of the repository in a directory, and returns what kopia is to
// write if there is none. Where there is no repository nothing is to be written: it may be where
// a disk is to be mounted.
func layoutOf(dir string) (shards []int, err error) {
	b, err := os.ReadFile(filepath.Join(dir, sharded.ParametersFile))
	switch {
	case err == nil && string(b) == layout:
		return nil, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	made, globErr := fs.Glob(os.DirFS(dir), "?/???")
	switch {
	case globErr != nil:
		return nil, globErr
	case len(made) > 0 && err == nil:
		return nil, errLayout
	case len(made) > 0:
		return layoutShards, nil
	case err == nil:
		return nil, nil // made by kopia's own program, in a way of its own
	}
	if _, err = os.Stat(filepath.Join(dir, format.KopiaRepositoryBlobID+".f")); errors.Is(err, fs.ErrNotExist) {
		return nil, repo.ErrRepositoryNotInitialized
	}
	return nil, err
}

// mendLayout writes a layout anew that is damaged, and tells whether that is so.
func (p Place) mendLayout(dryRun bool) (damaged bool, err error) {
	if p.URL.Scheme != config.SchemeFile {
		return false, nil
	}
	if _, err := layoutOf(p.URL.Path); !errors.Is(err, errLayout) {
		return false, nil // storage says what else there is
	}
	if dryRun {
		return true, nil
	}
	f, err := os.CreateTemp(p.URL.Path, sharded.ParametersFile+".*")
	if err != nil {
		return true, err
	}
	_, err = f.WriteString(layout)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(p.URL.Path, sharded.ParametersFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return true, err
}
