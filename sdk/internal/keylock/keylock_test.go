package keylock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func mustLock(t *testing.T, l *Locks, key string) func() {
	t.Helper()
	unlock, err := l.Lock(t.Context(), key)
	if err != nil {
		t.Fatalf("Lock(%q): %v", key, err)
	}
	return unlock
}

func TestOtherKeysDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		a := mustLock(t, &l, "a")
		defer a()
		start := time.Now()
		mustLock(t, &l, "b")()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("a free key waited %v for one that is held", waited)
		}
	})
}

func TestWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		unlock := mustLock(t, &l, "a")
		var got []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				unlock := mustLock(t, &l, "a")
				got = append(got, i)
				unlock()
			})
			synctest.Wait()
		}
		if len(got) != 0 {
			t.Fatalf("%v passed a key that is held", got)
		}
		unlock()
		wg.Wait()
		if want := []int{0, 1, 2, 3, 4}; !slices.Equal(got, want) {
			t.Errorf("order %v, want %v", got, want)
		}
	})
}

func TestContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		unlock := mustLock(t, &l, "a")
		cause := errors.New("gave up")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
		defer cancel()
		start := time.Now()
		if u, err := l.Lock(ctx, "a"); !errors.Is(err, cause) || u != nil {
			t.Errorf("Lock returned unlock %t, error %v; want the cause of the context", u != nil, err)
		}
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("waited %v, want 1m", waited)
		}
		unlock()
		mustLock(t, &l, "a")()
	})
}

func TestEndedContextGetsNothing(t *testing.T) {
	var l Locks
	cause := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := l.Lock(ctx, "a"); !errors.Is(err, cause) {
		t.Errorf("Lock = %v, want %v", err, cause)
	}
	mustLock(t, &l, "a")()
}

func TestSecondUnlockDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Locks
		first := mustLock(t, &l, "a")
		first()
		second := mustLock(t, &l, "a")
		first()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock = %v: the second call of an old unlock freed the key of another holder", err)
		}
		second()
	})
}

func TestUnusedKeysAreFreed(t *testing.T) {
	var l Locks
	for i := range 100 {
		unlock := mustLock(t, &l, fmt.Sprint(i))
		ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
		if _, err := l.Lock(ctx, fmt.Sprint(i)); err == nil {
			t.Fatal("a held key was given away")
		}
		cancel()
		unlock()
	}
	if n := len(l.entries); n != 0 {
		t.Errorf("%d entries are left of keys that nobody uses", n)
	}
}

// TestExclusion is what the race detector looks at: plain counters, guarded by keys.
func TestExclusion(t *testing.T) {
	const workers, rounds = 8, 500
	var l Locks
	counts := make([]int, 3)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for r := range rounds {
				k := (w + r) % len(counts)
				unlock := mustLock(t, &l, fmt.Sprint(k))
				counts[k]++
				unlock()
			}
		})
	}
	wg.Wait()
	if sum := counts[0] + counts[1] + counts[2]; sum != workers*rounds {
		t.Errorf("counted %d, want %d: two holders of one key at once", sum, workers*rounds)
	}
	if len(l.entries) != 0 {
		t.Errorf("%d entries left", len(l.entries))
	}
}

func BenchmarkLock(b *testing.B) {
	var l Locks
	ctx := b.Context()
	for b.Loop() {
		unlock, err := l.Lock(ctx, "a")
		if err != nil {
			b.Fatal(err)
		}
		unlock()
	}
}
