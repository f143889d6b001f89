package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// memo is the one thing that is remembered outside the pool: the ID of the pool that
// was seen at its path. Without it a daemon that starts before the pool's disk is
// mounted would take the empty directory below for a new pool.
type memo struct {
	dir  string // the daemon's state directory; empty remembers nothing
	pool string
}

const memoVersion = 1

type memoFacts struct {
	Path string `json:"path"`
	ID   string `json:"id"`
}

func (m memo) file() string { return filepath.Join(m.dir, m.name()) }

func (m memo) name() string { return filepath.Join("pools", m.pool+".json") }

// read returns the ID last seen at path, empty if there is none.
func (m memo) read(path string) (string, error) {
	if m.dir == "" {
		return "", nil
	}
	root, err := os.OpenRoot(m.dir)
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
		return "", fmt.Errorf("%s: %w", m.dir, err)
	}
	if f.Path != path {
		return "", nil // the pool was moved by its configuration
	}
	return f.ID, nil
}

func (m memo) write(path, id string) error {
	if m.dir == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(m.file()), 0o700); err != nil {
		return state.Classify(err)
	}
	root, err := os.OpenRoot(m.dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return state.Write(root, m.name(), memoVersion, memoFacts{Path: path, ID: id})
}
