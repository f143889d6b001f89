package pause

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// add keeps a pause for Close to end.
func (p *Pauser) add(h *Held) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errdefs.Errorf(errdefs.ErrUnavailable, "daemon: stopping")
	}
	p.held[h] = true
	return nil
}

// ended forgets a pause but for what is left of it.
func (p *Pauser) ended(h *Held, left []Container) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, h)
	if len(left) == 0 && !h.unsure {
		p.forget(h.file)
		return
	}
	if !p.closed { // else the next daemon does it
		p.tries.Go(func() { p.tryAgain(h.file, h.all) })
	}
}

// Close has all containers run on that are paused. To close it again does nothing.
func (p *Pauser) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	all := make([]*Held, 0, len(p.held))
	for h := range p.held {
		all = append(all, h)
	}
	p.mu.Unlock()
	for _, h := range all {
		h.late.Store(true)
		if err := h.End(); err != nil {
			p.Log.Error("containers are still paused", slog.Any("error", err))
		}
	}
	close(p.stop)
	p.tries.Wait()
}

// looks is how often containers are looked at at least where it is not known what came of a call to
// pause them: an engine may do it late.
const looks = 4

// tryAgain has containers run on until it is done, or Close.
func (p *Pauser) tryAgain(file string, all []Container) {
	for n := 1; ; n++ {
		left, err := unpause(p.life, all)
		switch {
		case err == nil && n >= looks:
			p.forget(file)
			return
		case err != nil && n == 1:
			p.Log.Error("containers are still paused", slog.Any("containers", names(left)), slog.Any("error", err))
		}
		select {
		case <-p.stop:
			return
		case <-time.After(p.Again):
		}
	}
}

// note writes down what is to be paused.
func (p *Pauser) note(u under) (file string, err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return "", state.Classify(err)
	}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return "", state.Classify(err)
	}
	defer root.Close()
	file = strings.ToLower(rand.Text()) + ".json"
	return file, state.Write(root, file, underVersion, u)
}

func (p *Pauser) forget(file string) {
	root, err := os.OpenRoot(p.Dir)
	if err == nil {
		defer root.Close()
		err = state.Remove(root, file)
	}
	if err != nil {
		p.Log.Error("a pause that has ended cannot be forgotten", slog.Any("error", err))
	}
}

// left returns what is written down, of a daemon before this one.
func (p *Pauser) left(ctx context.Context) map[string]under {
	all, err := state.Left[under](p.Dir, underVersion)
	if err != nil {
		p.Log.ErrorContext(ctx, "which containers are paused cannot be read", slog.Any("error", err))
	}
	return all
}
