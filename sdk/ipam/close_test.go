package ipam

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a driver that waits at its end.
type stuck struct {
	Driver
	open chan struct{}
}

func (s stuck) Close() error { <-s.open; return nil }

func TestCloseOfADriverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := stuck{open: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		err := NewHandler(d, Options{}).Close(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 10*time.Second {
			t.Errorf("Close = %v after %v", err, took)
		}
		close(d.open)
	})
}
