package authz

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk/internal/wire"
)

// stuck is an authorizer that decides after a time, deaf to its context, and counts how
// many are asking.
type stuck struct {
	time   time.Duration
	asking atomic.Int32
	most   atomic.Int32
}

func (s *stuck) Authorize(context.Context, *Request) (Decision, error) {
	s.most.Store(max(s.most.Load(), s.asking.Add(1)))
	time.Sleep(s.time)
	s.asking.Add(-1)
	return Allow(), nil
}

// TestMemoryIsBounded has room for two calls of 1 MiB, and sends ten.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{time: time.Second}
		h := NewHandler(s, Options{MaxBody: 2 << 20, MaxMemory: 3 << 20})
		big := jsonPost("/containers/create", `{"Image":"`+strings.Repeat("x", 1<<20)+`"}`)
		for range 10 {
			go func() {
				if _, got := send(t.Context(), t, h, wire.AuthZReq, big); !got.Allow {
					t.Errorf("denied: %+v", got)
				}
			}()
		}
		start := time.Now()
		time.Sleep(time.Minute)
		synctest.Wait()
		if most := s.most.Load(); most != 2 {
			t.Errorf("%d were asked at once", most)
		}
		if h.memory.free != 3<<20 || len(h.memory.queue) != 0 {
			t.Errorf("%d bytes are free, %d wait, after %v", h.memory.free, len(h.memory.queue), time.Since(start))
		}
	})
}

// TestMemoryOfWhoDoesNotStop: calls whose time is up are answered, yet their memory is
// not free before the authorizer returns; until then further calls are denied.
func TestMemoryOfWhoDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandler(&stuck{time: time.Hour}, Options{MaxBody: minCost, MaxMemory: minCost})
		if status, got := send(t.Context(), t, h, wire.AuthZReq, ping); status != 500 || got.Err != "no decision within 10s" {
			t.Errorf("status %d, answer %+v", status, got)
		}
		start := time.Now()
		status, got := send(t.Context(), t, h, wire.AuthZReq, ping)
		if status != 503 || got.Allow || got.Err != "too many requests at once: no memory for another within 10s" {
			t.Errorf("status %d, answer %+v", status, got)
		}
		if took := time.Since(start); took != DefaultTimeout {
			t.Errorf("answered after %v", took)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if h.memory.free != minCost {
			t.Errorf("%d bytes are free", h.memory.free)
		}
	})
}

// TestSmallCallsPassBehindAGiant that gives up.
func TestSmallCallsPassBehindAGiant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{free: 10}
		if b.take(t.Context(), 5) != nil {
			t.Fatal("nothing was free")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			if b.take(ctx, 10) == nil {
				t.Error("10 of 5 were taken")
			}
		}()
		synctest.Wait()
		start := time.Now()
		if err := b.take(t.Context(), 5); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("waited for %v", took)
		}
		b.give(5)
		b.give(5)
		if b.free != 10 {
			t.Errorf("%d are free", b.free)
		}
	})
}

// TestLengthIsNotBelieved: a call of unknown length counts as the largest there may be.
func TestLengthIsNotBelieved(t *testing.T) {
	var left int64
	var h *Handler
	h = NewHandler(Func(func(context.Context, *Request) (Decision, error) {
		left = h.memory.free
		return Allow(), nil
	}), Options{MaxBody: 1 << 20, MaxMemory: 4 << 20})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", io.MultiReader(strings.NewReader(`{"RequestMethod":"GET","RequestUri":"/info"}`)))
	w := httptest.NewRecorder()
	h.Methods()[wire.AuthZReq].ServeHTTP(w, r)
	if w.Code != 200 || left != 3<<20 {
		t.Errorf("status %d, %d bytes left", w.Code, left)
	}
}
