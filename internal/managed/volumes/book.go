package volumes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/remora-plugins/remora/internal/state"
)

// entry is what is remembered of a volume.
type entry struct {
	Name    string            `json:"name"`
	Driver  string            `json:"driver"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

const entryVersion = 1

// book has a file for each volume, and all of them in memory.
type book struct {
	root *os.Root

	mu   sync.RWMutex
	all  map[string]entry
	file sync.Mutex // held while a file is written or removed
}

func openBook(dir string, log *slog.Logger) (*book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	b := &book{root: root, all: map[string]entry{}}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w", closed(root, err))
	}
	if err := state.Clean(root, "."); err != nil { // a daemon that was killed while it wrote
		log.Warn("labels of volumes: something of no use is left", slog.Any("error", err))
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		var e entry
		if err := state.Read(root, f.Name(), entryVersion, &e); err != nil || fileOf(e.Name) != f.Name() {
			log.Error("labels of a volume not read", slog.String("file", f.Name()), slog.Any("error", err))
			continue
		}
		b.all[e.Name] = e
	}
	return b, nil
}

func closed(root *os.Root, err error) error {
	_ = root.Close() // nothing was written
	return err
}

func (b *book) close() error { return b.root.Close() }

// fileOf is where a volume is remembered: names of plugins' volumes may hold anything.
func fileOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:]) + ".json"
}

func (b *book) get(name string) (entry, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	e, ok := b.all[name]
	return e, ok
}

func (b *book) of(driver string) []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var names []string
	for _, e := range b.all {
		if e.Driver == driver {
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (b *book) put(e entry) error {
	b.file.Lock()
	defer b.file.Unlock()
	if err := state.Write(b.root, fileOf(e.Name), entryVersion, e); err != nil {
		return fmt.Errorf("volume %q: %w", e.Name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[e.Name] = e
	return nil
}

func (b *book) forget(name string) error {
	b.file.Lock()
	defer b.file.Unlock()
	if err := state.Remove(b.root, fileOf(name)); err != nil {
		return fmt.Errorf("volume %q: %w", name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, name)
	return nil
}
