package pool

import (
	"context"
	"maps"
	"sync"
)

// Ask calls one for each of n things that a driver is asked about, a few at a time, and returns what was answered before ctx
// ended, by their numbers. A call that hangs goes on as part of the pool's life; its answer is of no use any more.
func Ask[T any](ctx context.Context, p *Pool, n int, one func(i int) T) map[int]T {
	var mu sync.Mutex
	next, answers := 0, map[int]T{}
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == n || ctx.Err() != nil {
			return 0, false
		}
		next++
		return next - 1, true
	}
	var wg sync.WaitGroup
	for range min(Askers, n) {
		wg.Add(1)
		work := func() {
			defer wg.Done()
			for i, ok := take(); ok; i, ok = take() {
				answer := one(i)
				mu.Lock()
				answers[i] = answer
				mu.Unlock()
			}
		}
		if !p.Beside(ctx, work) {
			wg.Done()
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(answers)
}
