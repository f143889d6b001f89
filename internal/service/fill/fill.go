// Package fill knows the volumes that are being filled from a backup, or were when a daemon ended:
// what a crash leaves is never taken for a volume that is whole.
package fill

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/backup"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Fills are the volumes that are being filled from a backup, or were when a daemon ended. Each
// has a file in the state directory, POOL/VOLUME, from before its first byte is written until
// it is whole: what a crash leaves is never taken for a volume that is.
type Fills struct {
	dir string
	log *slog.Logger

	mu  sync.Mutex
	all map[[2]string]*Fill // by pool and volume: the one that is not whole, and the one beside it
}

// The kinds of a fill say what becomes of it when it is cut off.
const (
	// New is a volume that is made by a restore: it is destroyed.
	New = "new"
	// Create is one that an engine asked for: it is filled again from the beginning.
	Create = "create"
	// InPlace is a volume whose content is made in another one beside it: that one is
	// destroyed, or if it is whole takes the place.
	InPlace = "in-place"
	// Over is a volume whose content was removed before: it stays, is not used, and tells
	// what is wrong until it is restored again or removed.
	Over = "over"
	// Proof is a volume, or a directory, that is thrown away in any case.
	Proof = "proof"
)

// Facts is what the file of a fill says.
type Facts struct {
	Kind       string    `json:"kind"`
	Repository string    `json:"repository"`
	Backup     string    `json:"backup,omitempty"`
	Began      time.Time `json:"began"`
	// Of is what was asked for, as by the option "backup".
	Of string `json:"of,omitempty"`
	// Beside is the volume that is to take the place of this one; Whole says that it is to now.
	Beside string `json:"beside,omitempty"`
	Whole  bool   `json:"whole,omitempty"`
	// Made says that the volume is this fill's own: there was none of the name before.
	Made bool `json:"made,omitempty"`
	// Own says that all that is in the volume is this fill's: it was seen to be empty.
	Own bool `json:"own,omitempty"`
	// Dir is a directory outside of the pools that is to be thrown away.
	Dir string `json:"dir,omitempty"`
	// Error says why it is not whole, and will not be by itself.
	Error string `json:"error,omitempty"`
	// Before is what was known of the volume when this fill began. It is so still where this one
	// changes nothing: half a volume does not become a whole one by a restore that fails.
	Before *Facts `json:"before,omitempty"`
}

const fillVersion = 1

// Fill is one of them. What is in it is guarded by the mutex of all.
type Fill struct {
	Facts
	of         *Fills
	Pool, Name string

	running  bool
	progress backup.Progress
	since    time.Time // progress
	waiting  int       // how many wait for it
	done     chan struct{}
	err      error // when done is closed
	stop     context.CancelCauseFunc
	// tries that could not reach the repository, why the last one, and when the next is.
	tries int
	last  string
	again time.Time
}

func Open(dir string, log *slog.Logger) *Fills {
	return &Fills{dir: dir, log: log, all: map[[2]string]*Fill{}}
}

// Begin makes a fill that runs, and its file. Where another of the volume is under way, or is
// still to be undone, it is ErrInUse; one that has failed is taken over.
func (s *Fills) Begin(pool, name string, facts Facts) (*Fill, error) {
	if err := volume.CheckName(name); err != nil {
		return nil, err
	}
	facts.Began = time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &Fill{Facts: facts, of: s, Pool: pool, Name: name, running: true, since: time.Now(), done: make(chan struct{})}
	if old := s.all[[2]string{pool, name}]; old != nil {
		if old.running || old.pending() {
			return nil, fmt.Errorf("volume %q: %w", name, old.refusal())
		}
		before := old.Facts
		f.Before = &before
	}
	if err := s.write(f); err != nil {
		return nil, fmt.Errorf("volume %q: %w", name, err)
	}
	s.put(f)
	return f, nil
}

// pending tells whether a fill that does not run has something to be undone, or finished.
func (f *Fill) pending() bool {
	return f.Kind == InPlace || f.Kind == Proof || f.Kind == New
}

// CutOff tells of a fill, or of none, whether it is one beside a volume that is to be finished.
func (f *Fill) CutOff() bool {
	if f == nil {
		return false
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.Beside != "" && !f.running
}

func (s *Fills) put(f *Fill) {
	s.all[[2]string{f.Pool, f.Name}] = f
	if f.Beside != "" {
		s.all[[2]string{f.Pool, f.Beside}] = f
	}
}

func (s *Fills) write(f *Fill) error {
	dir := filepath.Join(s.dir, f.Pool)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return state.Classify(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return state.Write(root, f.Name, fillVersion, f.Facts)
}

// Change changes the facts of a fill, and its file.
func (f *Fill) Change(do func(*Facts)) error {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	do(&f.Facts)
	return f.of.write(f)
}

// End forgets a fill: its volume is whole, or gone.
func (f *Fill) End() error {
	s := f.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[[2]string{f.Pool, f.Name}] != f {
		return nil // another has taken it over, and the file with it
	}
	root, err := os.OpenRoot(filepath.Join(s.dir, f.Pool))
	if err == nil {
		err = state.Remove(root, f.Name)
		_ = root.Close()
	}
	if err != nil {
		return fmt.Errorf("volume %q: %w", f.Name, state.Classify(err))
	}
	delete(s.all, [2]string{f.Pool, f.Name})
	delete(s.all, [2]string{f.Pool, f.Beside})
	return nil
}

// Abandon forgets a fill that has changed nothing of its volume, which is then what it was before:
// whole, or what another fill had left.
func (f *Fill) Abandon() error {
	s := f.of
	s.mu.Lock()
	before := f.Before
	if before == nil || s.all[[2]string{f.Pool, f.Name}] != f {
		s.mu.Unlock()
		return f.End()
	}
	defer s.mu.Unlock()
	old := &Fill{Facts: *before, of: s, Pool: f.Pool, Name: f.Name}
	if err := s.write(old); err != nil {
		return fmt.Errorf("volume %q: %w", f.Name, err)
	}
	delete(s.all, [2]string{f.Pool, f.Beside})
	s.put(old)
	return nil
}

// Stopped says that a fill does not run any more, and what came of it.
func (f *Fill) Stopped(err error) {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.running, f.err = false, err
	close(f.done)
}

// Load reads the fills of a pool that a daemon before this one has left.
func (s *Fills) Load(ctx context.Context, pool string) {
	root, err := os.OpenRoot(filepath.Join(s.dir, pool))
	if err != nil {
		if !os.IsNotExist(err) {
			s.log.ErrorContext(ctx, "what was being restored cannot be read", slog.String("pool", pool), slog.Any("error", err))
		}
		return
	}
	defer root.Close()
	entries, err := os.ReadDir(root.Name())
	if err != nil {
		s.log.ErrorContext(ctx, "what was being restored cannot be read", slog.String("pool", pool), slog.Any("error", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // what a kill in the midst of writing has left; nobody writes now
			_ = root.Remove(e.Name())
			continue
		}
		if s.all[[2]string{pool, e.Name()}] != nil {
			continue
		}
		f := &Fill{of: s, Pool: pool, Name: e.Name()}
		if err := state.Read(root, e.Name(), fillVersion, &f.Facts); err != nil {
			// The volume is not used: nobody knows whether it is whole.
			f.Kind, f.Error = Over, errdefs.OneLine(err.Error())
			s.log.ErrorContext(ctx, "what was being restored cannot be read", slog.String("pool", pool), slog.String("volume", f.Name), slog.Any("error", err))
		}
		s.put(f)
	}
}

// Left returns the fills of a pool that do not run.
func (s *Fills) Left(pool string) (all []*Fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, f := range s.all {
		if key[0] == pool && key[1] == f.Name && !f.running {
			all = append(all, f)
		}
	}
	return all
}

func (s *Fills) Get(pool, name string) *Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[[2]string{pool, name}]
}
