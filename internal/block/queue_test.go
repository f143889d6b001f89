package block_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// served keeps in which order requests had their turn.
type served struct {
	mu    sync.Mutex
	order []int
}

func (s *served) ask(ctx context.Context, t *testing.T, c *block.Client, n int) error {
	t.Helper()
	return c.Do(ctx, "op", func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.order = append(s.order, n)
		return nil
	})
}

// spend uses up what may come at once.
func spend(t *testing.T, c *block.Client, n int) {
	t.Helper()
	for range n {
		if err := c.Do(t.Context(), "spend", func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFirstComeFirstServed: requests have their turn in the order in which they came, also where others come
// all the time, one in front gives up, or the cloud closes meanwhile.
func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := block.NewClient(t.Name(), 2)
		spend(t, c, 10)
		var s served
		var all sync.WaitGroup
		hasty, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		want := []int{}
		for i := range 40 {
			ctx := t.Context()
			if i%10 == 3 {
				ctx = hasty
			} else {
				want = append(want, i)
			}
			all.Go(func() {
				if err := s.ask(ctx, t, c, i); (err != nil) != (i%10 == 3) {
					t.Errorf("request %d: %v", i, err)
				}
			})
			synctest.Wait()
			if i == 0 {
				continue
			}
			// The rate lets one through in half a second: those that come later find room just as it is there.
			time.Sleep(70 * time.Millisecond)
			if i == 3 {
				giveUp()
				synctest.Wait()
			}
		}
		all.Wait()
		if !slices.Equal(s.order, want) {
			t.Errorf("served were  %v\nand there came %v", s.order, want)
		}
	})
}

// TestThrottledKeepsItsPlace: a request that the cloud refuses as one too many is made again before those
// that came after it.
func TestThrottledKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := block.NewClient(t.Name(), 1)
		var s served
		tries := 0
		var all sync.WaitGroup
		all.Go(func() {
			_ = c.Do(t.Context(), "first", func(context.Context) error {
				if tries++; tries == 1 {
					time.Sleep(time.Second / 2) // while others come
					// Not for longer: two for whom there is room at the same moment note themselves in any order.
					return block.Throttled(errors.New("slow down"), time.Second/4)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				s.order = append(s.order, 0)
				return nil
			})
		})
		synctest.Wait()
		spend(t, c, 4)
		for i := range 8 {
			all.Go(func() { _ = s.ask(t.Context(), t, c, i+1) })
			synctest.Wait()
			time.Sleep(time.Second / 4)
		}
		all.Wait()
		if len(s.order) != 9 || !slices.IsSorted(s.order) {
			t.Errorf("served were %v", s.order)
		}
	})
}

// TestNoRoom: what a person is told whose request did not come to its turn.
func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := block.NewClient(t.Name(), 1)
		spend(t, c, 5)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var s served
		err := s.ask(ctx, t, c, 1)
		if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(strings.Join(errdefs.Hints(err), " "), "rate") {
			t.Errorf("error is %v, with the hints %q", err, errdefs.Hints(err))
		}
		if err := s.ask(t.Context(), t, c, 2); err != nil {
			t.Errorf("after one that gave up: %v", err)
		}
	})
}
