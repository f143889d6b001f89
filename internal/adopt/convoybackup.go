package adopt

import (
	"cmp"
	"encoding/json"
	"path/filepath"
	"slices"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

const convoyStore = "convoy-objectstore"

// ConvoyBackups returns the volumes that have backups by Convoy in a directory, which Convoy
// knows as vfs://DIR, sorted by name. The data of each is its newest backup.
func ConvoyBackups(dir string) ([]Volume, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if filepath.Base(dir) == convoyStore {
		dir = filepath.Dir(dir)
	}
	configs, err := filepath.Glob(filepath.Join(escape(dir), convoyStore, "volumes", "*", "*", "*", "volume.cfg"))
	if err != nil {
		return nil, err
	}
	if len(configs) == 0 {
		return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrNotFound, "%s: there is no backup of Convoy", dir),
			"want the directory of --dest vfs://DIRECTORY, which has the directory "+convoyStore)
	}
	var all []Volume
	for _, config := range configs {
		v := Volume{Name: filepath.Base(filepath.Dir(config))}
		if err := newestConvoy(&v, dir, config); err != nil {
			v.Err = err
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// newestConvoy finds the newest backup of the volume that config is of.
func newestConvoy(v *Volume, dir, config string) error {
	data, err := readFile(config)
	if err != nil {
		return err
	}
	var facts struct{ Name, Driver string }
	if err := json.Unmarshal(data, &facts); err != nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", config, err)
	}
	if facts.Driver != "vfs" {
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "its backups are of the driver %q", facts.Driver),
			"restore it with Convoy, copy what is in it to a directory, and adopt that: remora volume create -o from=DIRECTORY NAME")
	}
	backups, err := filepath.Glob(filepath.Join(escape(filepath.Dir(config)), "backups", "backup_*.cfg"))
	if err != nil {
		return err
	}
	var newest convoyBackup
	for _, file := range backups {
		data, err := readFile(file)
		if err != nil {
			return err
		}
		b, err := parseConvoyBackup(data)
		if err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "%s: %w", file, err)
		}
		if newest.file == "" || b.made.After(newest.made) {
			newest = b
		}
	}
	if newest.file == "" {
		return errdefs.Errorf(errdefs.ErrNotFound, "it has no backup")
	}
	v.Archive, v.Path = filepath.Join(dir, newest.file), "."
	return nil
}

type convoyBackup struct {
	file string // below the directory of the store
	made time.Time
}

func parseConvoyBackup(data []byte) (convoyBackup, error) {
	var b struct {
		CreatedTime string
		SingleFile  struct{ FilePath string }
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return convoyBackup{}, err
	}
	made, err := time.Parse("Mon Jan 2 15:04:05 -0700 2006", b.CreatedTime)
	switch {
	case err != nil:
		return convoyBackup{}, errdefs.Errorf(errdefs.ErrInvalid, "its time %q is none", b.CreatedTime)
	case !filepath.IsLocal(b.SingleFile.FilePath):
		return convoyBackup{}, errdefs.Errorf(errdefs.ErrInvalid, "its file %q is not in the store", b.SingleFile.FilePath)
	}
	return convoyBackup{b.SingleFile.FilePath, made}, nil
}

// escape makes a path a pattern for itself (filepath.Match).
func escape(path string) string {
	var out []rune
	for _, r := range path {
		if r == '*' || r == '?' || r == '[' || r == '\\' {
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}
