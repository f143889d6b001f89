package pooldir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Memo is the one thing that is remembered outside the pool: the ID of the pool that was
// seen at a path, or in an image. Without it a daemon that starts before a disk is mounted
// would take the directory below for a new pool, or make a new image.
type Memo struct {
	// Dir is the daemon's state directory; empty remembers nothing.
	Dir string
	// Pool is the name of the pool.
	Pool string
}

const memoVersion = 1

type memoFacts struct {
	Path string `json:"path"`
	ID   string `json:"id"`
}

// File returns the path of the file.
func (m Memo) File() string { return filepath.Join(m.Dir, m.name()) }

func (m Memo) name() string { return filepath.Join("pools", m.Pool+".json") }

// Read returns the ID last seen at path, empty if there is none.
func (m Memo) Read(path string) (string, error) {
	if m.Dir == "" {
		return "", nil
	}
	root, err := os.OpenRoot(m.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", state.Classify(err)
	}
	defer root.Close()
	var f memoFacts
	err = state.Read(root, m.name(), memoVersion, &f)
	if errors.Is(err, errdefs.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.Dir, err)
	}
	if f.Path != path {
		return "", nil // the pool was moved by its configuration
	}
	return f.ID, nil
}

// Write remembers the ID of the pool at path, and no other path's any more.
func (m Memo) Write(path, id string) error {
	if m.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(m.File()), 0o700); err != nil {
		return state.Classify(err)
	}
	root, err := os.OpenRoot(m.Dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return state.Write(root, m.name(), memoVersion, memoFacts{Path: path, ID: id})
}
