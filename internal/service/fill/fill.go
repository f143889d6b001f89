package daemon

import (
	"cmp"
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

// fills are the volumes that are being filled from a backup, or were when a daemon ended. Each
// has a file in the state directory, POOL/VOLUME, from before its first byte is written until
// it is whole: what a crash leaves is never taken for a volume that is.
type fills struct {
	dir string
	log *slog.Logger

	mu  sync.Mutex
	all map[[2]string]*fill // by pool and volume: the one that is not whole, and the one beside it
}

// The kinds of a fill say what becomes of it when it is cut off.
const (
	// fillNew is a volume that is made by a restore: it is destroyed.
	fillNew = "new"
	// fillCreate is one that an engine asked for: it is filled again from the beginning.
	fillCreate = "create"
	// fillInPlace is a volume whose content is made in another one beside it: that one is
	// destroyed, or if it is whole takes the place.
	fillInPlace = "in-place"
	// fillOver is a volume whose content was removed before: it stays, is not used, and tells
	// what is wrong until it is restored again or removed.
	fillOver = "over"
	// fillProof is a volume, or a directory, that is thrown away in any case.
	fillProof = "proof"
)

// fillFacts is what the file of a fill says.
type fillFacts struct {
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
	Before *fillFacts `json:"before,omitempty"`
}

const fillVersion = 1

// fill is one of them. What is in it is guarded by the mutex of all.
type fill struct {
	fillFacts
	of         *fills
	pool, name string

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

func newFills(dir string, log *slog.Logger) *fills {
	return &fills{dir: dir, log: log, all: map[[2]string]*fill{}}
}

// begin makes a fill that runs, and its file. Where another of the volume is under way, or is
// still to be undone, it is ErrInUse; one that has failed is taken over.
func (s *fills) begin(pool, name string, facts fillFacts) (*fill, error) {
	if err := volume.CheckName(name); err != nil {
		return nil, err
	}
	facts.Began = time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &fill{fillFacts: facts, of: s, pool: pool, name: name, running: true, since: time.Now(), done: make(chan struct{})}
	if old := s.all[[2]string{pool, name}]; old != nil {
		if old.running || old.pending() {
			return nil, fmt.Errorf("volume %q: %w", name, old.refusal())
		}
		before := old.fillFacts
		f.Before = &before
	}
	if err := s.write(f); err != nil {
		return nil, fmt.Errorf("volume %q: %w", name, err)
	}
	s.put(f)
	return f, nil
}

// pending tells whether a fill that does not run has something to be undone, or finished.
func (f *fill) pending() bool {
	return f.Kind == fillInPlace || f.Kind == fillProof || f.Kind == fillNew
}

// cutOff tells of a fill, or of none, whether it is one beside a volume that is to be finished.
func (f *fill) cutOff() bool {
	if f == nil {
		return false
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	return f.Beside != "" && !f.running
}

func (s *fills) put(f *fill) {
	s.all[[2]string{f.pool, f.name}] = f
	if f.Beside != "" {
		s.all[[2]string{f.pool, f.Beside}] = f
	}
}

func (s *fills) write(f *fill) error {
	dir := filepath.Join(s.dir, f.pool)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return state.Classify(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	return state.Write(root, f.name, fillVersion, f.fillFacts)
}

// change changes the facts of a fill, and its file.
func (f *fill) change(do func(*fillFacts)) error {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	do(&f.fillFacts)
	return f.of.write(f)
}

// end forgets a fill: its volume is whole, or gone.
func (f *fill) end() error {
	s := f.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[[2]string{f.pool, f.name}] != f {
		return nil // another has taken it over, and the file with it
	}
	root, err := os.OpenRoot(filepath.Join(s.dir, f.pool))
	if err == nil {
		err = state.Remove(root, f.name)
		_ = root.Close()
	}
	if err != nil {
		return fmt.Errorf("volume %q: %w", f.name, state.Classify(err))
	}
	delete(s.all, [2]string{f.pool, f.name})
	delete(s.all, [2]string{f.pool, f.Beside})
	return nil
}

// abandon forgets a fill that has changed nothing of its volume, which is then what it was before:
// whole, or what another fill had left.
func (f *fill) abandon() error {
	s := f.of
	s.mu.Lock()
	before := f.Before
	if before == nil || s.all[[2]string{f.pool, f.name}] != f {
		s.mu.Unlock()
		return f.end()
	}
	defer s.mu.Unlock()
	old := &fill{fillFacts: *before, of: s, pool: f.pool, name: f.name}
	if err := s.write(old); err != nil {
		return fmt.Errorf("volume %q: %w", f.name, err)
	}
	delete(s.all, [2]string{f.pool, f.Beside})
	s.put(old)
	return nil
}

// stopped says that a fill does not run any more, and what came of it.
func (f *fill) stopped(err error) {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.running, f.err = false, err
	close(f.done)
}

// load reads the fills of a pool that a daemon before this one has left.
func (s *fills) load(ctx context.Context, pool string) {
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
		if strings.HasPrefix(e.Name(), ".") || s.all[[2]string{pool, e.Name()}] != nil {
			continue
		}
		f := &fill{of: s, pool: pool, name: e.Name()}
		if err := state.Read(root, e.Name(), fillVersion, &f.fillFacts); err != nil {
			// The volume is not used: nobody knows whether it is whole.
			f.Kind, f.Error = fillOver, errdefs.OneLine(err.Error())
			s.log.ErrorContext(ctx, "what was being restored cannot be read", slog.String("pool", pool), slog.String("volume", f.name), slog.Any("error", err))
		}
		s.put(f)
	}
}

// left returns the fills of a pool that do not run.
func (s *fills) left(pool string) (all []*fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, f := range s.all {
		if key[0] == pool && key[1] == f.name && !f.running {
			all = append(all, f)
		}
	}
	return all
}

func (s *fills) get(pool, name string) *fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[[2]string{pool, name}]
}

// ofFill marks a context as that of a fill, which may do with its volume what others may not.
type ofFill struct{}

func (f *fill) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, ofFill{}, f)
}

// mayUse refuses a volume that is not whole to all but its own fill.
func (s *fills) mayUse(pool string) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		f := s.all[[2]string{pool, name}]
		if f == nil || ctx.Value(ofFill{}) == f {
			return nil
		}
		return f.refusal()
	}
}

// mayRemove refuses the removal of a volume that is being filled.
func (s *fills) mayRemove(pool string) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		f := s.all[[2]string{pool, name}]
		if f == nil || ctx.Value(ofFill{}) == f || !f.running && !f.pending() {
			return nil
		}
		return f.refusal()
	}
}

// removed forgets what is known of a volume that somebody removed.
func (s *fills) removed(pool string) func(context.Context, string) {
	return func(ctx context.Context, name string) {
		f := s.get(pool, name)
		if f == nil || f.name != name || ctx.Value(ofFill{}) == f {
			return
		}
		if err := f.end(); err != nil {
			s.log.ErrorContext(ctx, "removed volume is still taken for one that is being restored", slog.Any("error", err))
		}
	}
}

// refusal says why a volume cannot be used now. Engines show a person the text alone.
func (f *fill) refusal() error {
	what := "from " + cmp.Or(f.Of, "backup "+shortID(f.Backup))
	switch {
	case f.Kind == fillProof:
		return errdefs.Errorf(errdefs.ErrInUse, "is for the proof of a backup, and goes by itself")
	case f.running:
		return errdefs.Errorf(errdefs.ErrInUse, "is being restored %s: %s", what, f.percent())
	case f.pending():
		return errdefs.Errorf(errdefs.ErrUnavailable, "a restore %s was cut off, and is being undone", what)
	case f.Kind == fillCreate && f.Error == "":
		return errdefs.Errorf(errdefs.ErrUnavailable, "is being restored %s, which is tried again: %s", what, cmp.Or(f.last, "it was cut off"))
	case f.Error == "":
		return errdefs.Errorf(errdefs.ErrUnavailable, "only partly restored %s, as that was cut off: restore it again, or remove it", what)
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "only partly restored %s: %s: restore it again, or remove it", what, f.Error)
}

// percent says how far a fill has come, and how long it will take.
func (f *fill) percent() string {
	p := f.progress
	if p.Total == 0 {
		return "begun"
	}
	part := float64(p.Done) / float64(p.Total)
	text := fmt.Sprintf("%.0f %%", 100*part)
	if took := time.Since(f.since); part > 0 && took > time.Second {
		text += fmt.Sprintf(", %s left", time.Duration(float64(took)*(1-part)/part).Round(time.Second))
	}
	return text
}

// word says in a word or two what a list shows of a volume; empty for one that is whole.
func (s *fills) word(pool, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[[2]string{pool, name}]
	switch {
	case f == nil:
		return ""
	case f.Kind == fillProof:
		return "proof"
	case f.running && f.progress.Total > 0:
		return fmt.Sprintf("restoring %.0f %%", 100*float64(f.progress.Done)/float64(f.progress.Total))
	case f.running:
		return "restoring"
	}
	return "partial"
}

// tell takes progress, and hands it on.
func (f *fill) tell(next func(backup.Progress)) func(backup.Progress) {
	return func(p backup.Progress) {
		f.of.mu.Lock()
		f.progress = p
		f.of.mu.Unlock()
		if next != nil {
			next(p)
		}
	}
}

func shortID(id string) string { return fmt.Sprintf("%.12s", id) }
