package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/remora-plugins/remora/internal/service/pool"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Protected is the folder of the state directory with a file for each volume that is
// protected, called POOL/VOLUME. The file is the fact: nothing of it is kept in memory.
type Protected struct {
	dir string
}

// protection is what such a file says.
type protection struct {
	Since time.Time `json:"since"`
}

const protectionVersion = 1

// NewProtected returns that of a state directory.
func NewProtected(stateDir string) Protected {
	return Protected{filepath.Join(stateDir, "protected")}
}

// set protects a volume, or does not any more.
func (p Protected) set(pool, name string, on bool) error {
	dir := filepath.Join(p.dir, pool)
	if on {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return state.Classify(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if !on && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	if !on {
		return state.Remove(root, name)
	}
	return state.Write(root, name, protectionVersion, protection{time.Now().UTC().Truncate(time.Second)})
}

// has tells whether a volume is protected.
func (p Protected) has(pool, name string) (bool, error) {
	_, err := os.Lstat(filepath.Join(p.dir, pool, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// all returns the volumes of a pool that are protected.
func (p Protected) all(pool string) map[string]bool {
	entries, _ := os.ReadDir(filepath.Join(p.dir, pool)) // what cannot be read protects still, see has
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names
}

// MayRemove refuses the removal of a volume that is protected, or of which that cannot be
// known. Engines show a person the text alone, so what to do is part of it.
func (p Protected) MayRemove(pool string) func(context.Context, string) error {
	return func(_ context.Context, name string) error {
		on, err := p.has(pool, name)
		if err != nil {
			return errdefs.Errorf(errdefs.ErrUnavailable, "cannot tell whether it is protected: %w", err)
		}
		if on {
			return errdefs.Errorf(errdefs.ErrDenied, "protected; to remove it: remora volume unprotect --pool %s %s", pool, name)
		}
		return nil
	}
}

// protect protects a volume, which has to be there.
func (p Protected) protect(ctx context.Context, at *pool.Pool, name string, on bool) error {
	if on {
		if _, err := at.Handler.Get(ctx, name); err != nil {
			return err
		}
	} else if err := p.checkKnown(ctx, at, name); err != nil {
		return err
	}
	if err := p.set(at.Conf.Name, name, on); err != nil {
		return fmt.Errorf("volume %q: %w", name, err)
	}
	return nil
}

// checkKnown refuses a name that neither a volume has nor a protection: one can outlive the
// other, as when somebody deletes a volume behind our back.
func (p Protected) checkKnown(ctx context.Context, at *pool.Pool, name string) error {
	_, err := at.Handler.Get(ctx, name)
	if err == nil || volume.CheckName(name) != nil {
		return err
	}
	if on, _ := p.has(at.Conf.Name, name); on {
		return nil
	}
	return err
}
