package network

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a driver that waits at its end.
type stuck struct {
	Driver
	gate chan struct{}
}

func (s stuck) Close() error { <-s.gate; return nil }

func TestCloseOfADriverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := stuck{gate: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		err := open(t, d, Options{}).Close(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 10*time.Second {
			t.Errorf("Close = %v after %v", err, took)
		}
		close(d.gate)
	})
}

// restorer is a script that is told what there was.
type restorer struct{ *script }

func (r restorer) Restore(ctx context.Context, networks []Restored) error {
	return r.on(ctx, "restore", fmt.Sprint(len(networks)))
}

// TestStartOfADriverThatHangs: a start ends within the limits, whatever the driver waits for.
func TestStartOfADriverThatHangs(t *testing.T) {
	for _, verb := range []string{"restore", "delete"} {
		t.Run(verb, func(t *testing.T) {
			dir := Dir(t.TempDir())
			first := &script{}
			h := open(t, first, Options{State: dir})
			for i := range 5 { // none of which is made, nor taken back
				first.will("create", func(context.Context) error { return errors.New("no") })
				first.will("delete", func(context.Context) error { return errors.New("no") })
				n := net1
				n.ID = fmt.Sprint("n", i)
				if err := h.createNetwork(t.Context(), n); err == nil {
					t.Fatal("created")
				}
			}
			synctest.Test(t, func(t *testing.T) {
				s, gate := &script{}, make(chan struct{})
				s.will(verb, func(context.Context) error { <-gate; return nil })
				start := time.Now()
				h, err := NewHandler(t.Context(), restorer{s}, Options{State: dir, Timeout: 10 * time.Second})
				if took := time.Since(start); took > 12*time.Second {
					t.Errorf("the start took %v", took)
				}
				if verb == "restore" && (!errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "restore networks: gave up after 10s")) {
					t.Errorf("start without what is to be restored: %v", err)
				}
				if verb == "delete" && err != nil {
					t.Errorf("start: %v", err)
				}
				close(gate)
				if h != nil {
					err = h.Close(t.Context())
				}
				if verb == "delete" && err != nil {
					t.Error(err)
				}
			})
		})
	}
}
