package trash

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// store is a trash of which each volume takes 10 bytes of 100.
type store struct {
	mu     sync.Mutex
	all    []volume.Trashed
	other  int64 // bytes that something else takes
	late   bool  // purging frees nothing yet
	purged []string
	errs   map[string]error
	space  error
}

func (s *store) put(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, volume.Trashed{ID: "id-" + name, Name: name, RemovedAt: time.Now()})
}

// set changes s while a purger runs.
func (s *store) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *store) Trashed(context.Context) ([]volume.Trashed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all), s.errs[""]
}

func (s *store) Purge(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.errs[id]; err != nil {
		return err
	}
	s.purged = append(s.purged, id)
	s.all = slices.DeleteFunc(s.all, func(t volume.Trashed) bool { return t.ID == id })
	if s.late {
		s.other += 10
	}
	return nil
}

func (s *store) Space(context.Context) (volume.Space, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return volume.Space{Free: 100 - s.other - 10*int64(len(s.all)), Total: 100}, s.space
}

// run runs a purger of s for as long as the test says, and ends it.
func run(t *testing.T, s *store, keep time.Duration, minFree float64, f func()) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		p := &Purger{Store: s, Keep: keep, MinFree: minFree, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		go func() { p.Run(ctx); close(done) }()
		time.Sleep(spaceEvery / 2) // so that nothing happens at the time of a tick
		f()
		stop()
		<-done
	})
}

func (s *store) want(t *testing.T, ids ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.purged, ids) {
		t.Errorf("after %s purged are %q, want %q", time.Since(s.start()), s.purged, ids)
	}
}

// start is when a bubble of synctest begins.
func (*store) start() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func TestExpiry(t *testing.T) {
	s := &store{}
	run(t, s, 72*time.Hour, 5, func() {
		s.put("a")
		time.Sleep(2 * time.Hour)
		s.put("b")
		time.Sleep(69 * time.Hour)
		s.want(t)
		time.Sleep(2*time.Hour + time.Minute)
		s.want(t, "id-a")
		time.Sleep(2 * time.Hour)
		s.want(t, "id-a", "id-b")
	})
}

// A daemon that starts finds what expired while there was none, if the clock still says so after a while.
func TestExpiryAtStart(t *testing.T) {
	s := &store{all: []volume.Trashed{
		{ID: "1", Name: "a", RemovedAt: (*store).start(nil).Add(-73 * time.Hour)},
		{ID: "2", Name: "a", RemovedAt: (*store).start(nil).Add(-71 * time.Hour)},
	}}
	run(t, s, 72*time.Hour, 0, func() {
		time.Sleep(settle - spaceEvery)
		s.want(t)
		time.Sleep(spaceEvery)
		s.want(t, "1")
	})
}

// Even where the trash is to be kept for no time at all, a minute is left to regret.
func TestFresh(t *testing.T) {
	s := &store{other: 99}
	run(t, s, time.Second, 50, func() {
		s.put("a")
		time.Sleep(59 * time.Second)
		s.want(t)
		time.Sleep(2 * time.Minute)
		s.want(t, "id-a")
	})
}

// When room is short the oldest go, and no more than have to.
func TestSpace(t *testing.T) {
	s := &store{}
	run(t, s, 72*time.Hour, 25, func() {
		for _, name := range []string{"a", "b", "c"} {
			s.put(name)
			time.Sleep(2 * time.Minute)
		}
		s.want(t)
		s.set(func() { s.other = 60 }) // 10 are free, and 25 have to be
		time.Sleep(time.Minute)
		s.want(t, "id-a", "id-b")
		time.Sleep(time.Hour)
		s.want(t, "id-a", "id-b")
	})
}

// Where the room comes back late, one volume dies at a time.
func TestSpaceLate(t *testing.T) {
	s := &store{late: true}
	run(t, s, 72*time.Hour, 25, func() {
		for _, name := range []string{"a", "b", "c"} {
			s.put(name)
		}
		time.Sleep(2 * time.Minute)
		s.set(func() { s.other = 60 })
		time.Sleep(time.Minute)
		s.want(t, "id-a")
		s.set(func() { s.other = 0 }) // it came
		time.Sleep(time.Hour)
		s.want(t, "id-a")
	})
}

func TestErrors(t *testing.T) {
	s := &store{errs: map[string]error{"id-a": errors.New("device busy"), "id-b": errdefs.ErrNotFound}, space: errdefs.ErrUnsupported}
	run(t, s, time.Hour, 90, func() {
		for _, name := range []string{"a", "b", "c"} {
			s.put(name)
		}
		time.Sleep(59 * time.Minute)
		s.want(t)
		time.Sleep(2 * time.Hour)
		s.want(t, "id-c") // what cannot be purged keeps no other
		s.set(func() { s.errs = nil })
		time.Sleep(2 * time.Hour)
		s.want(t, "id-c", "id-a", "id-b")
		s.put("d")
		s.set(func() { s.errs = map[string]error{"": errdefs.ErrUnavailable} })
		time.Sleep(5 * time.Hour)
		s.want(t, "id-c", "id-a", "id-b")
	})
}
