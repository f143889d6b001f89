package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// able is a driver that can do all that commands may ask of one, by copying directories:
//
//	PATH/NAME/data      a volume, beside it its limit and
//	PATH/NAME/snap/S    its snapshots, with labels in S.label
//
// It keeps its promises only to one daemon that is not killed.
type able struct {
	mu   sync.Mutex
	path string
	slow bool
}

type ableConfig struct {
	Path string `opt:"path" required:"true" help:"where the volumes lie"`
	Slow bool   `opt:"slow" help:"do not answer what a volume is like"`
}

type ableOptions struct {
	Size *catalog.Bytes `opt:"size" help:"the limit"`
}

func ableDriver() catalog.Volume {
	return catalog.NewVolume("able", "copies directories, for tests", func(_ context.Context, c ableConfig, _ catalog.Env) (volume.Driver, error) {
		path, err := filepath.Abs(c.Path)
		return &able{path: path, slow: c.Slow}, errors.Join(err, os.MkdirAll(path, 0o700))
	}).WithOptions(catalog.Describe[ableOptions]())
}

func (a *able) at(parts ...string) string {
	return filepath.Join(append([]string{a.path}, parts...)...)
}

// need locks, and looks whether a volume or a snapshot is there.
func (a *able) need(what string, parts ...string) (unlock func(), err error) {
	a.mu.Lock()
	if _, err := os.Stat(a.at(parts...)); err != nil {
		a.mu.Unlock()
		return nil, errdefs.Errorf(errdefs.ErrNotFound, "no such %s", what)
	}
	return a.mu.Unlock, nil
}

func (a *able) Create(_ context.Context, name string, opts map[string]string) error {
	o, err := catalog.DecodeOptions[ableOptions](opts)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	err = os.MkdirAll(a.at(name, "data"), 0o700)
	if o.Size != nil && err == nil {
		err = a.limit(name, int64(*o.Size))
	}
	return err
}

func (a *able) limit(name string, n int64) error {
	return os.WriteFile(a.at(name, "limit"), []byte(strconv.FormatInt(n, 10)), 0o600)
}

func (a *able) Remove(_ context.Context, name string) error {
	unlock, err := a.need("volume", name)
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(a.at(name))
}

func (a *able) Mount(_ context.Context, name, _ string) (string, error) {
	unlock, err := a.need("volume", name)
	if err != nil {
		return "", err
	}
	defer unlock()
	return a.at(name, "data"), nil
}

func (a *able) Unmount(context.Context, string, string) error { return nil }

func (a *able) Volumes(context.Context) iter.Seq2[volume.Info, error] {
	return func(yield func(volume.Info, error) bool) {
		entries, err := os.ReadDir(a.path)
		if err != nil {
			yield(volume.Info{}, err)
			return
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !yield(volume.Info{Name: e.Name(), Mountpoint: a.at(e.Name(), "data")}, nil) {
				return
			}
		}
	}
}

func (a *able) Inspect(_ context.Context, name string) (volume.Info, error) {
	unlock, err := a.need("volume", name)
	if err != nil {
		return volume.Info{}, err
	}
	defer unlock()
	return volume.Info{Name: name, Mountpoint: a.at(name, "data")}, nil
}

// wait is what a slow driver does when it is asked.
func (a *able) wait(ctx context.Context) error {
	if a.slow {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (a *able) Usage(ctx context.Context, name string) (u volume.Usage, err error) {
	if err := a.wait(ctx); err != nil {
		return u, err
	}
	unlock, err := a.need("volume", name)
	if err != nil {
		return u, err
	}
	defer unlock()
	err = filepath.WalkDir(a.at(name, "data"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			fi, ferr := e.Info()
			u.Used, err = u.Used+fi.Size(), ferr
		}
		return err
	})
	if text, rerr := os.ReadFile(a.at(name, "limit")); rerr == nil {
		_, err = fmt.Sscan(string(text), &u.Limit)
	}
	return u, err
}

func (a *able) Resize(_ context.Context, name string, size int64) error {
	unlock, err := a.need("volume", name)
	if err != nil {
		return err
	}
	defer unlock()
	if size < 1024 {
		return errdefs.Errorf(errdefs.ErrInvalid, "%d bytes are too few", size)
	}
	return a.limit(name, size)
}

func (a *able) CreateSnapshot(_ context.Context, name, snapshot string, labels map[string]string) error {
	unlock, err := a.need("volume", name)
	if err != nil {
		return err
	}
	defer unlock()
	to := a.at(name, "snap", snapshot)
	if _, err := os.Stat(to); err == nil {
		return errdefs.Errorf(errdefs.ErrExists, "there is one of this name")
	}
	var text strings.Builder
	for k, v := range labels {
		fmt.Fprintf(&text, "%s=%s\n", k, v)
	}
	return errors.Join(copyData(a.at(name, "data"), to), os.WriteFile(to+".label", []byte(text.String()), 0o600))
}

// copyData copies files with their times: os.CopyFS does not.
func copyData(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(to+strings.TrimPrefix(path, from), fi.ModTime(), fi.ModTime())
	})
}

func (a *able) Snapshots(ctx context.Context, name string) (all []volume.Snapshot, err error) {
	if err := a.wait(ctx); err != nil {
		return nil, err
	}
	unlock, err := a.need("volume", name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, _ := os.ReadDir(a.at(name, "snap")) // none before the first
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		text, err := os.ReadFile(a.at(name, "snap", e.Name()+".label"))
		if err != nil {
			return nil, err
		}
		fi, err := os.Stat(a.at(name, "snap", e.Name()+".label"))
		if err != nil {
			return nil, err
		}
		s := volume.Snapshot{Name: e.Name(), CreatedAt: fi.ModTime()}
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
				if s.Labels == nil {
					s.Labels = map[string]string{}
				}
				s.Labels[k] = v
			}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b volume.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return all, nil
}

func (a *able) RemoveSnapshot(_ context.Context, name, snapshot string) error {
	unlock, err := a.need("snapshot", name, "snap", snapshot)
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(os.RemoveAll(a.at(name, "snap", snapshot)), os.Remove(a.at(name, "snap", snapshot+".label")))
}

func (a *able) OpenSnapshot(_ context.Context, name, snapshot, _ string) (string, error) {
	unlock, err := a.need("snapshot", name, "snap", snapshot)
	if err != nil {
		return "", err
	}
	defer unlock()
	return a.at(name, "snap", snapshot), nil
}

func (a *able) CloseSnapshot(context.Context, string, string, string) error { return nil }

func (a *able) Rollback(_ context.Context, name, snapshot string) error {
	unlock, err := a.need("snapshot", name, "snap", snapshot)
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(os.RemoveAll(a.at(name, "data")), copyData(a.at(name, "snap", snapshot), a.at(name, "data")))
}

func (a *able) Clone(_ context.Context, name, from, snapshot string, opts map[string]string) error {
	if _, err := catalog.DecodeOptions[ableOptions](opts); err != nil {
		return err
	}
	parts, what := []string{from, "data"}, "volume"
	if snapshot != "" {
		parts, what = []string{from, "snap", snapshot}, "snapshot"
	}
	unlock, err := a.need(what, parts...)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(a.at(name)); err == nil {
		return errdefs.Errorf(errdefs.ErrExists, "there is a volume of this name")
	}
	return copyData(a.at(parts...), a.at(name, "data"))
}
