package blocktest

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/volume"
)

// Many measures the time of a list of n volumes, of a look at one, and of its path, through the Handler
// as an engine has it, while no call to the cloud comes back: before and after a start.
func Many(t *testing.T, c Config, n int) {
	s := newStage(t, c)
	h := s.host(func(c *block.Config) { c.Refresh = time.Second })
	s.fill(h, n)
	h.again()
	s.eventually("all are listed", func() bool { return len(s.names(h)) == n })
	hang := make(chan struct{})
	var wait sync.Once
	defer wait.Do(func() { close(hang) })
	stall := stalled(hang)
	h.faults.Set(stall(h.faults), nil)
	s.measure(h, n, "while the cloud hangs")
	h.crash()
	h.openStalled(stall)
	s.measure(h, n, "after a start into a cloud that hangs")
	wait.Do(func() { close(hang) })
}

// stalled has each call to the cloud hang for as long as a cloud does, or until the test lets go; that of a daemon
// that is dead ends with it.
func stalled(letGo <-chan struct{}) func(*Faults) func(string) error {
	return func(f *Faults) func(string) error {
		return func(string) error {
			select {
			case <-letGo:
			case <-f.died:
			case <-time.After(30 * time.Second):
			}
			return errLost
		}
	}
}

// openStalled opens a daemon whose first call to the cloud hangs already.
func (h *host) openStalled(stall func(*Faults) func(string) error) {
	h.s.Helper()
	was := h.s.Slow
	h.s.Slow = time.Millisecond // no list will come
	defer func() { h.s.Slow = was }()
	h.stall = stall
	h.open()
	h.stall = nil
}

// fill makes volumes without the core, which would take its time.
func (s *stage) fill(h *host, n int) {
	s.Helper()
	p := h.Provider(s)
	var all sync.WaitGroup
	work := make(chan int)
	for range 16 {
		all.Go(func() {
			for i := range work {
				id := fmt.Sprintf("00000000-0000-8000-8000-%012x", i)
				_, err := p.Create(s.Context(), block.Spec{UUID: id, Size: s.Size, Tags: block.Tags{
					block.TagUUID: id, block.TagNamespace: "test", block.TagName: fmt.Sprintf("volume%05d", i), "fs": "ext4", "o.mode": "0755",
				}})
				if err != nil {
					s.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
}

func (s *stage) names(h *host) (names []string) {
	s.Helper()
	for info, err := range h.driver.Volumes(s.Context()) {
		if err != nil {
			return nil
		}
		names = append(names, info.Name)
	}
	return names
}

// measure looks through a Handler.
func (s *stage) measure(h *host, n int, when string) {
	s.Helper()
	hd, err := volume.NewHandler(s.Context(), keepOpen{h.driver}, volume.Options{MountRoot: filepath.Join(h.dir, "handler"), Refresh: -1})
	if err != nil {
		s.Fatal(err)
	}
	defer hd.Close(context.WithoutCancel(s.Context()))
	look := map[string]func(i int){
		"list": func(int) {
			got := 0
			for _, err := range hd.List(s.Context()) {
				if err != nil {
					s.Fatal(err)
				}
				got++
			}
			if got != n {
				s.Fatalf("%d volumes of %d", got, n)
			}
		},
		"get": func(i int) {
			if _, err := hd.Get(s.Context(), fmt.Sprintf("volume%05d", i*7919%n)); err != nil {
				s.Fatal(err)
			}
		},
		"path": func(i int) {
			if _, err := hd.Path(s.Context(), fmt.Sprintf("volume%05d", i*7919%n)); err != nil {
				s.Fatal(err)
			}
		},
	}
	for _, what := range []string{"list", "get", "path"} {
		s.quick(fmt.Sprintf("%s of %d volumes, %s", what, n, when), look[what])
	}
}

// limit is what an engine may have to wait for an answer.
const limit = slower * 10 * time.Millisecond

// quick wants 99 of 100 looks to take no longer than limit. What others do on the machine is no fault of the
// code, which would be slow each time.
func (s *stage) quick(what string, look func(i int)) {
	s.Helper()
	p50, p99 := percentiles(look)
	for tries := time.Duration(1); p99 > limit && tries < 15; tries++ {
		time.Sleep(tries * 100 * time.Millisecond)
		p50, p99 = percentiles(look)
	}
	s.Logf("%s: p50 %s, p99 %s", what, p50, p99)
	if p99 > limit {
		s.Errorf("%s: p99 is %s", what, p99)
	}
}

func percentiles(look func(i int)) (p50, p99 time.Duration) {
	var took []time.Duration
	for i := range 300 {
		began := time.Now()
		look(i)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

// keepOpen is a driver that its Handler does not close.
type keepOpen struct{ volume.Driver }
