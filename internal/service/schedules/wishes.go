package schedules

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/engine"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Option is the option of a volume by which it asks for schedules: names with commas
// between them. Engines know the same as a label, [schedule.Label], which they do not tell a
// plugin: they are asked for it.
const Option = "schedule"

// wishes is which volumes ask for which schedules. What an option said lies in a folder of the
// state directory, in a file for each volume called POOL/VOLUME; what labels say is in memory.
type wishes struct {
	dir string

	mu       sync.Mutex
	byOption map[string]map[string][]string // by pool, which is read once, and volume
	byLabel  map[string]map[[2]string][]string
	unknown  map[string]bool // what has been warned of
}

// wish is what such a file says.
type wish struct {
	Schedules []string `json:"schedules"`
}

const wishVersion = 1

// of returns the schedules that a volume asks for.
func (a *wishes) of(pool, name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	names := slices.Clone(a.optionsOf(pool)[name])
	for _, labels := range a.byLabel {
		names = append(names, labels[[2]string{pool, name}]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// optionsOf returns what options said of the volumes of a pool. mu is held.
func (a *wishes) optionsOf(pool string) map[string][]string {
	if m := a.byOption[pool]; m != nil {
		return m
	}
	m := map[string][]string{}
	root, err := os.OpenRoot(filepath.Join(a.dir, pool))
	if err == nil {
		defer root.Close()
		entries, _ := fs.ReadDir(root.FS(), ".") // what cannot be read asks for nothing
		for _, e := range entries {
			var w wish
			if state.Read(root, e.Name(), wishVersion, &w) == nil {
				m[e.Name()] = w.Schedules
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return m // it is tried again
	}
	if a.byOption == nil {
		a.byOption = map[string]map[string][]string{}
	}
	a.byOption[pool] = m
	return m
}

// keep remembers what the options of a volume said. A volume that is new asks for nothing unless
// it says so, whatever one of its name did before.
func (a *wishes) keep(pool, name string, opts map[string]string, known bool) error {
	text, given := opts[Option]
	if !given && known {
		return nil
	}
	names := scheduleNames(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.optionsOf(pool)
	if slices.Equal(all[name], names) {
		return nil
	}
	dir := filepath.Join(a.dir, pool)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return state.Classify(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return state.Classify(err)
	}
	defer root.Close()
	if len(names) == 0 {
		err = state.Remove(root, name)
	} else {
		err = state.Write(root, name, wishVersion, wish{names})
	}
	if err != nil {
		return err
	}
	if len(names) == 0 {
		delete(all, name)
	} else {
		all[name] = names
	}
	return nil
}

// scheduleNames takes a list of names apart.
func scheduleNames(text string) []string {
	names := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(names)
	return slices.Compact(names)
}

// OwnOptions are the options of the volumes of a pool that are the daemon's.
func (s *Service) OwnOptions(pool string) volume.OwnOptions {
	return volume.OwnOptions{
		Names: []string{Option},
		Check: func(opts map[string]string) error {
			for _, name := range scheduleNames(opts[Option]) {
				err := s.knows(name)
				if err == nil {
					err = s.able(pool, name)
				}
				if err != nil {
					return fmt.Errorf("option %q: %w", Option, err)
				}
			}
			return nil
		},
		Keep: func(_ context.Context, name string, opts map[string]string, known bool) error {
			return s.wishes.keep(pool, name, opts, known)
		},
	}
}

// knows refuses the name of a schedule that is not in the configuration.
func (s *Service) knows(name string) error {
	var names []string
	for _, c := range s.Configured() {
		if c.Name == name {
			return nil
		}
		names = append(names, c.Name)
	}
	if len(names) == 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "no schedule %q, as none is configured", name)
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "no schedule %q, there are: %s", name, strings.Join(names, ", "))
}

// able refuses a schedule that can do nothing in a pool.
func (s *Service) able(pool, name string) error {
	p := s.Pools.Find(pool)
	i := slices.IndexFunc(s.Configured(), func(c schedule.Schedule) bool { return c.Name == name })
	if p == nil || i < 0 || s.Configured()[i].Can(s.In(p).Able()) {
		return nil
	}
	return errdefs.Hint(
		errdefs.Errorf(errdefs.ErrInvalid, "schedule %q: it makes snapshots alone, which the driver %s of pool %q has none of", name, p.Conf.Driver, pool),
		"give the schedule a repository, or the volume another pool",
	)
}

// How often engines are asked for labels where the volumes have changed, and where they have not:
// then somebody may have told an engine of a volume that was there before.
const (
	labelsEvery = 10 * time.Second
	labelsAgain = 10 * time.Minute
)

// WatchLabels asks the engines for labels until the daemon stops.
func (s *Service) WatchLabels(ctx context.Context) {
	var seen uint64
	var at time.Time
	settled := false // asked once after the last change: an engine notes a label behind our answer
	tick := time.NewTicker(labelsEvery)
	defer tick.Stop()
	for {
		now, any := s.volumesSum() //nolint:contextcheck // it is of memory
		if any && len(s.Configured()) > 0 && (now != seen || !settled || time.Since(at) >= labelsAgain) {
			settled = now == seen
			seen, at = now, time.Now()
			for _, e := range s.Engines() {
				s.readLabels(ctx, e)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// volumesSum is a sum over the volumes that there are, and whether there are any.
func (s *Service) volumesSum() (sum uint64, some bool) {
	h := fnv.New64a()
	for _, p := range s.Pools.All() {
		for v, err := range p.Handler.List(p.Context()) { // from memory
			if err == nil {
				some = true
				_, _ = fmt.Fprintf(h, "%s\x00%s\x00%d\x00", p.Conf.Name, v.Name, v.CreatedAt.UnixNano()) // never fails
			}
		}
	}
	return h.Sum64(), some
}

// readLabels takes over what an engine says. Where it does not answer, what it said before holds.
func (s *Service) readLabels(ctx context.Context, e engine.Engine) {
	volumes, err := e.Volumes(ctx, schedule.Label)
	if err != nil {
		s.Log.DebugContext(ctx, "labels of volumes cannot be read", slog.Any("error", err))
		return
	}
	labels := map[[2]string][]string{}
	for _, v := range volumes {
		names := scheduleNames(v.Labels[schedule.Label])
		of := v.Pool()
		labels[[2]string{of, v.Name}] = names
		for _, name := range names {
			if err := s.knows(name); err != nil && s.Pools.Find(of) != nil && s.wishes.first(of, v.Name, name) {
				s.Log.WarnContext(ctx, "label of a volume asks for what is not there", slog.String("pool", of), slog.String("volume", v.Name), slog.Any("error", err))
			}
		}
	}
	s.wishes.mu.Lock()
	defer s.wishes.mu.Unlock()
	if s.wishes.byLabel == nil {
		s.wishes.byLabel = map[string]map[[2]string][]string{}
	}
	s.wishes.byLabel[e.Socket] = labels
}

// first tells whether nobody has been warned of this yet.
func (a *wishes) first(words ...string) bool {
	key := strings.Join(words, "\x00")
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unknown[key] {
		return false
	}
	if a.unknown == nil {
		a.unknown = map[string]bool{}
	}
	a.unknown[key] = true
	return true
}
