package state

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
)

// suffix is what the names of files have that are one of many of a kind.
const suffix = ".json"

// Each reads all files of a directory whose names end in ".json", and calls found with the name of each and what [Read]
// made of it. The error is that of the directory.
func Each[T any](root *os.Root, dir string, version int, found func(name string, v T, err error)) error {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return Classify(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			var v T
			err := Read(root, path.Join(dir, e.Name()), version, &v)
			found(e.Name(), v, err)
		}
	}
	return nil
}

// Left returns what a process before this one has left in a directory, by the names of the files, after it was cleaned as by
// [Clean]; nothing, where there is no such directory. What cannot be read is in the error, beside the rest.
func Left[T any](dir string, version int) (map[string]T, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]T{}, nil
	}
	if err != nil {
		return nil, Classify(err)
	}
	defer root.Close()
	all := map[string]T{}
	errs := []error{Clean(root, ".")}
	errs = append(errs, Each(root, ".", version, func(name string, v T, err error) {
		if err == nil {
			all[name] = v
		}
		errs = append(errs, err)
	}))
	return all, errors.Join(errs...)
}
