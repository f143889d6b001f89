package unpack

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
)

// Same says whether a directory has, among whatever else, each file below a path of the archive,
// with its size and time: it was unpacked there, and has not been written to since.
func Same(ctx context.Context, file, below, dir string, told Progress) (bool, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, fmt.Errorf("%s: %w", dir, classify(err))
	}
	defer root.Close()
	files := 0
	last := map[string]entry{} // in an archive the last one counts
	err = each(ctx, file, told, func(_ *archive, e entry) error {
		name, in := within(e.name, below)
		if !in {
			return nil
		}
		files++
		if e.Typeflag == tar.TypeReg {
			last[name] = e
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for name, e := range last {
		st, err := root.Lstat(name)
		if err != nil || !st.Mode().IsRegular() || st.Size() != e.Size || st.ModTime().Unix() != e.ModTime.Unix() {
			return false, nil
		}
	}
	return files > 0, nil
}
