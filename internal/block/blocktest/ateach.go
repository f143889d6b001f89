package blocktest

import "sync"

// atEach plays a life for each call at which a daemon may end, several at once, each with hosts and a volume
// of its own. play tells whether there were so many calls; the first number at which there were not is returned.
func (s *stage) atEach(step int, play func(at int) bool) (calls int) {
	s.Helper()
	var mu sync.Mutex
	next, end := 1, 61
	take := func() (at int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		at, next = next, next+step
		return at, at < end
	}
	last := func(at int) {
		mu.Lock()
		defer mu.Unlock()
		end = min(end, at)
	}
	var all sync.WaitGroup
	for range s.Together {
		all.Go(func() {
			for at, ok := take(); ok; at, ok = take() {
				if !play(at) {
					last(at)
				}
			}
		})
	}
	all.Wait()
	switch { // what was said by another goroutine did not end this one
	case s.Failed():
		s.FailNow()
	case s.Skipped():
		s.SkipNow()
	case end > 60:
		s.Fatal("it makes no end")
	}
	return end
}
