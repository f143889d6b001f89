package volume

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// able is a fake that can do all that a driver may be able to do. Its snapshots are names, its
// trash moves names about.
type able struct {
	*fake

	mu        sync.Mutex
	limits    map[string]int64
	snapshots map[string][]Snapshot
	trash     []Trashed
	opened    map[string]bool
	number    int
}

func newAble(dir string, names ...string) *able {
	return &able{fake: newFake(dir, names...), limits: map[string]int64{}, snapshots: map[string][]Snapshot{}, opened: map[string]bool{}}
}

var errNoSuch = errdefs.Errorf(errdefs.ErrNotFound, "no such volume")

// enter is the beginning of every call about a volume that there has to be.
func (a *able) enter(ctx context.Context, verb, name string) error {
	if err := a.call(ctx, verb, name); err != nil {
		return err
	}
	if !a.has(name) {
		return errNoSuch
	}
	return nil
}

func (a *able) set(name string, there bool) {
	a.fake.mu.Lock()
	defer a.fake.mu.Unlock()
	if there {
		a.volumes[name] = true
	} else {
		delete(a.volumes, name)
	}
}

func (a *able) Usage(ctx context.Context, name string) (Usage, error) {
	if err := a.enter(ctx, "usage", name); err != nil {
		return Usage{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return Usage{Used: 7, Limit: a.limits[name]}, nil
}

// Survey tells of two volumes before it fails.
func (a *able) Survey(ctx context.Context) iter.Seq2[Figures, error] {
	return func(yield func(Figures, error) bool) {
		err := a.call(ctx, "survey", "")
		for _, name := range []string{"a", "b"} {
			a.mu.Lock()
			n := len(a.snapshots[name])
			a.mu.Unlock()
			if !yield(Figures{Name: name, Usage: &Usage{Used: 7}, Snapshots: &n}, nil) {
				return
			}
		}
		if err != nil {
			yield(Figures{}, err)
		}
	}
}

func (a *able) Space(ctx context.Context) (Space, error) {
	return Space{Free: 3, Total: 10}, a.call(ctx, "space", "")
}

func (a *able) Resize(ctx context.Context, name string, size int64) error {
	if err := a.enter(ctx, "resize", name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limits[name] = size
	return nil
}

func (a *able) index(name, snapshot string) int {
	return slices.IndexFunc(a.snapshots[name], func(s Snapshot) bool { return s.Name == snapshot })
}

func (a *able) CreateSnapshot(ctx context.Context, name, snapshot string, labels map[string]string) error {
	if err := a.enter(ctx, "snapshot", name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.index(name, snapshot) >= 0 {
		return errdefs.Errorf(errdefs.ErrExists, "there is one of this name")
	}
	a.snapshots[name] = append(a.snapshots[name], Snapshot{Name: snapshot, CreatedAt: time.Now(), Labels: labels})
	return nil
}

func (a *able) Snapshots(ctx context.Context, name string) ([]Snapshot, error) {
	if err := a.enter(ctx, "snapshots", name); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.snapshots[name]), nil
}

// find is enter for a snapshot that there has to be.
func (a *able) find(ctx context.Context, verb, name, snapshot string) error {
	if err := a.enter(ctx, verb, name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.index(name, snapshot) < 0 {
		return errdefs.Errorf(errdefs.ErrNotFound, "no such snapshot")
	}
	return nil
}

func (a *able) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	if err := a.find(ctx, "unsnapshot", name, snapshot); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.index(name, snapshot)
	a.snapshots[name] = slices.Delete(a.snapshots[name], i, i+1)
	return nil
}

func (a *able) Rollback(ctx context.Context, name, snapshot string) error {
	return a.find(ctx, "rollback", name, snapshot)
}

func (a *able) OpenSnapshot(ctx context.Context, name, snapshot, target string) (string, error) {
	if err := a.find(ctx, "open", name, snapshot); err != nil {
		return "", err
	}
	if target == "" {
		target = filepath.Join(a.dir, name+"@"+snapshot)
	} else if _, err := os.ReadDir(target); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened[target] = true
	return target, nil
}

func (a *able) CloseSnapshot(ctx context.Context, name, snapshot, dir string) error {
	if err := a.call(ctx, "close", name+"@"+snapshot); err != nil {
		return err
	}
	if mounted, err := isMount(dir); err != nil || mounted {
		return errors.Join(err, syscall.Unmount(dir, 0))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.opened, dir)
	return nil
}

func (a *able) open() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.opened)
}

func (a *able) Clone(ctx context.Context, name, from, snapshot string, opts map[string]string) error {
	if err := a.call(ctx, "clone", name+" of "+from+"@"+snapshot); err != nil {
		return err
	}
	if opts["bad"] != "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q is of no use", opts["bad"])
	}
	if a.has(name) {
		return errdefs.Errorf(errdefs.ErrExists, "there is one of this name")
	}
	if !a.has(from) {
		return errNoSuch
	}
	a.set(name, true)
	return nil
}

func (a *able) Trash(ctx context.Context, name string) error {
	if err := a.enter(ctx, "trash", name); err != nil {
		return err
	}
	a.set(name, false)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.number++
	a.trash = append(a.trash, Trashed{ID: strconv.Itoa(a.number), Name: name, RemovedAt: time.Now()})
	return nil
}

func (a *able) Trashed(ctx context.Context) ([]Trashed, error) {
	if err := a.call(ctx, "trashed", ""); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.trash), nil
}

func (a *able) take(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.trash)
	if a.trash = slices.DeleteFunc(a.trash, func(t Trashed) bool { return t.ID == id }); len(a.trash) == n {
		return errdefs.Errorf(errdefs.ErrNotFound, "no such volume in the trash")
	}
	return nil
}

func (a *able) Restore(ctx context.Context, id, name string) error {
	if err := a.call(ctx, "restore", name); err != nil {
		return err
	}
	if a.has(name) {
		return errdefs.Errorf(errdefs.ErrExists, "there is one of this name")
	}
	if err := a.take(id); err != nil {
		return err
	}
	a.set(name, true)
	return nil
}

func (a *able) Purge(ctx context.Context, id string) error {
	if err := a.call(ctx, "purge", id); err != nil {
		return err
	}
	return a.take(id)
}
