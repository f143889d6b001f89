package bounded

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type closer func() error

func (c closer) Close() error { return c() }

func TestClose(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		driver any
		ended  bool
		want   string // empty is no error
		took   time.Duration
	}{
		"no closer":         {driver: 1},
		"closes":            {driver: closer(func() error { return nil })},
		"closes, ctx ended": {driver: closer(func() error { return nil }), ended: true},
		"fails":             {driver: closer(func() error { return broken }), want: "broken"},
		"panics":            {driver: closer(func() error { panic("no") }), want: "close: internal error"},
		"takes long":        {driver: closer(func() error { time.Sleep(time.Minute); return broken }), want: "close: driver has not ended: enough", took: 6 * time.Second},
		"takes long, ctx ended": {
			driver: closer(func() error { time.Sleep(time.Minute); return nil }), ended: true,
			want: "close: driver has not ended: enough", took: time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				enough := errors.New("enough")
				ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, enough)
				defer cancel()
				if tt.ended {
					ended, end := context.WithCancelCause(ctx)
					end(enough)
					ctx = ended
				}
				start := time.Now()
				err := Close(ctx, slog.New(slog.DiscardHandler), tt.driver)
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
					t.Errorf("Close = %v, want %q", err, tt.want)
				}
				time.Sleep(time.Hour) // let it end
			})
		})
	}
}
