package remote

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Monitor looks at the mounts of a pool every now and then, remembers which do not answer,
// and says in the log when one stops to, and when it is back.
type Monitor struct {
	look  func(ctx context.Context, name, mountpoint string) error
	find  func() (map[string]string, error)
	log   *slog.Logger
	stop  context.CancelFunc
	ended chan struct{}

	mu     sync.Mutex
	health map[string]Health
}

// Health is what a [Monitor] knows of one mount.
type Health struct {
	Mountpoint string
	// Err is nil while it answers.
	Err error
	// Since is when it was first seen to be so.
	Since time.Time
}

// NewMonitor starts a Monitor, which find tells what is mounted where, by volume; it is
// asked before each round. look looks at one of them, which [Looks.At] does, and more
// where an answer of the file system's does not mean one of its server's. The Monitor
// outlives ctx. Close it.
func NewMonitor(ctx context.Context, every time.Duration, log *slog.Logger, find func() (map[string]string, error),
	look func(ctx context.Context, name, mountpoint string) error,
) *Monitor {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	m := &Monitor{look: look, find: find, log: log, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		for {
			m.Look(ctx)
			select {
			case <-time.After(every):
			case <-ctx.Done():
				return
			}
		}
	}()
	return m
}

// Look looks at all mounts now, at the same time, and returns what it found, by volume.
// It takes as long as one look.
func (m *Monitor) Look(ctx context.Context) map[string]Health {
	mounts, err := m.find()
	if err != nil {
		m.log.WarnContext(ctx, "mounts cannot be listed", slog.Any("error", err))
		return m.all()
	}
	errs := make(map[string]error, len(mounts))
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, mountpoint := range mounts {
		all.Go(func() {
			err := m.look(ctx, name, mountpoint)
			mu.Lock()
			defer mu.Unlock()
			errs[name] = err
		})
	}
	all.Wait()
	if ctx.Err() == nil { // else some were not waited for
		m.note(ctx, mounts, errs)
	}
	return m.all()
}

// Ping looks at all mounts now. It is ErrUnavailable, with their names, where some do not
// answer.
func (m *Monitor) Ping(ctx context.Context) error {
	found := m.Look(ctx)
	var silent []string
	var last error
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if err := found[name].Err; err != nil {
			silent, last = append(silent, strconv.Quote(name)), err
		}
	}
	switch len(silent) {
	case 0:
		return nil
	case 1:
		return errdefs.Errorf(errdefs.ErrUnavailable, "volume %s: %w", silent[0], last)
	}
	return errdefs.Errorf(errdefs.ErrUnavailable, "%d of %d volumes that are mounted do not answer: %s", len(silent), len(found), strings.Join(silent, ", "))
}

// note takes over what was found.
func (m *Monitor) note(ctx context.Context, mounts map[string]string, errs map[string]error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[string]Health, len(mounts))
	for _, name := range slices.Sorted(maps.Keys(mounts)) {
		h := Health{mounts[name], errs[name], time.Now()}
		was, known := m.health[name]
		switch {
		case known && (was.Err == nil) == (h.Err == nil):
			h.Since = was.Since
		case h.Err != nil:
			m.log.WarnContext(ctx, "volume does not answer", slog.String("volume", name), slog.String("path", h.Mountpoint), slog.Any("error", h.Err))
		case known:
			m.log.InfoContext(ctx, "volume answers again", slog.String("volume", name), slog.String("path", h.Mountpoint),
				slog.Duration("after", h.Since.Sub(was.Since).Round(time.Second)))
		}
		next[name] = h
	}
	m.health = next
}

func (m *Monitor) all() map[string]Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.health)
}

// Of returns what is remembered of a volume. ok is false if it was not mounted at the last
// look.
func (m *Monitor) Of(name string) (h Health, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok = m.health[name]
	return h, ok
}

// State says in words what is remembered of a volume.
func (m *Monitor) State(name string) string {
	h, ok := m.Of(name)
	switch {
	case !ok:
		return "not mounted"
	case h.Err != nil:
		return fmt.Sprintf("does not answer since %s: %v", h.Since.UTC().Format(time.RFC3339), h.Err)
	}
	return "answers"
}

// Close ends the looking. A look that hangs is not waited for.
func (m *Monitor) Close() {
	m.stop()
	<-m.ended
}
