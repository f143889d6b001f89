package volumes

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/engine"
)

// consumers remembers which containers have which volumes, as the engines told last.
type consumers struct {
	mu     sync.Mutex
	of     map[engine.Volume][]control.Consumer
	asking chan struct{} // closed when the question under way is answered; nil without one
}

const (
	// consumerTime is how long a list waits for the engines: they are not what it is about.
	consumerTime = 400 * time.Millisecond
	// engineTime bounds one answer of an engine.
	engineTime = 20 * time.Second
)

// ask asks the engines, once at a time whoever wants to know, and returns what is closed when they
// have answered.
func (c *consumers) ask(s *Service) (answered <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking != nil {
		return c.asking
	}
	done := make(chan struct{})
	c.asking = done
	go func() {
		of := s.askEngines()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.of, c.asking = of, nil
		close(done)
	}()
	return done
}

// askEngines asks the engines that are there for their containers.
func (s *Service) askEngines() map[engine.Volume][]control.Consumer {
	ctx, cancel := context.WithTimeout(s.Life, engineTime)
	defer cancel()
	of := map[engine.Volume][]control.Consumer{}
	for _, e := range s.Engines() {
		all, err := e.Containers(ctx)
		if err != nil {
			s.Log.DebugContext(ctx, "containers are not known", slog.Any("error", err))
		}
		for _, one := range all {
			for _, v := range one.Volumes {
				v.Driver = v.Pool()
				of[v] = append(of[v], control.Consumer{Name: one.Name, Running: one.Running})
			}
		}
	}
	return of
}

// addConsumers adds to volumes which containers have them, as far as the engines answer in time,
// and otherwise as they did last.
func (s *Service) addConsumers(ctx context.Context, all []*control.Volume, answered <-chan struct{}, late <-chan time.Time) {
	select {
	case <-answered:
	case <-late:
	case <-ctx.Done():
	}
	s.consumers.mu.Lock()
	of := s.consumers.of // replaced, and not changed
	s.consumers.mu.Unlock()
	if len(of) == 0 {
		return
	}
	for _, v := range all {
		v.Consumers = of[engine.Volume{Driver: v.Pool, Name: v.Name}]
	}
}
