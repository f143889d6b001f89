// Command mobyfs is a whole volume plugin: each volume is a directory below one root.
//
//	mobyfs start              on /run/docker/plugins/mobyfs.sock
//	mobyfs start -p 8080      on loopback, announced in /etc/docker/plugins/mobyfs.spec
//
// On SIGHUP it reads the root again.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// dirs is the driver. It mounts nothing: a container gets the directory itself.
type dirs struct{ *os.Root }

func (d dirs) Create(_ context.Context, name string, opts map[string]string) error {
	for key := range opts {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: mobyfs takes none", key)
	}
	return d.MkdirAll(name, 0o755)
}

func (d dirs) Remove(ctx context.Context, name string) error {
	if _, err := d.Mount(ctx, name, ""); err != nil {
		return err
	}
	return d.RemoveAll(name)
}

func (d dirs) Mount(_ context.Context, name, _ string) (string, error) {
	_, err := d.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = errdefs.As(errdefs.ErrNotFound, err)
	}
	return filepath.Join(d.Name(), name), err
}

func (d dirs) Unmount(context.Context, string, string) error { return nil }

func (d dirs) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		entries, err := fs.ReadDir(d.FS(), ".")
		for _, e := range entries {
			info := volume.Info{Name: e.Name(), Mountpoint: filepath.Join(d.Name(), e.Name())}
			if e.IsDir() && volume.CheckName(e.Name()) == nil && !yield(info, nil) {
				return
			}
		}
		if err != nil {
			yield(volume.Info{}, err)
		}
	}
}

func main() {
	root := flag.String("root", "/var/lib/mobyfs", "`directory` of the volumes, which must exist")
	os.Exit(sdk.Main("mobyfs", func(ctx context.Context, log *slog.Logger) (sdk.Plugin, error) {
		r, err := os.OpenRoot(*root)
		if err != nil {
			return nil, err
		}
		return volume.NewHandler(ctx, dirs{r}, volume.Options{Logger: log, Ledger: *root + "/.mounts"})
	}))
}
