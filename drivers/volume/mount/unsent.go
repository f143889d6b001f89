package mount

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// metaName is where rclone notes what it knows of each file below its cache (rclone vfs/vfscache: Item).
const metaName = "vfsMeta"

// checkSent refuses to lose what was written to a volume and rclone has not sent yet. It is nowhere but in the cache.
func checkSent(ctx context.Context, cache string) error {
	name, err := unsent(ctx, cache)
	if err != nil || name == "" {
		return err
	}
	return errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "rclone has not sent %q yet, and nothing else has it", name),
		"mount it once more when the server is there, and it is sent; or give up what was written: rm -r "+cache)
}

// unsent returns a file that rclone has yet to send, "" if there is none.
func unsent(ctx context.Context, cache string) (name string, err error) {
	meta := filepath.Join(cache, metaName)
	err = filepath.WalkDir(meta, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // rclone goes on meanwhile
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !e.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var item struct{ Dirty bool }
		if json.Unmarshal(text, &item) == nil && item.Dirty {
			name, _ = filepath.Rel(meta, path)
			return filepath.SkipAll
		}
		return nil
	})
	return name, state.Classify(err)
}
