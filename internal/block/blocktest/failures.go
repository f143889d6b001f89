package blocktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// errLost is a call whose answer, or which itself, got lost.
var errLost = errdefs.Errorf(errdefs.ErrUnavailable, "connection reset by the test")

// lostAnswers: each call gets lost once on its way, and once on its way back.
func lostAnswers(s *stage) {
	for _, back := range []bool{false, true} {
		h := s.host()
		var mu sync.Mutex
		seen := map[string]bool{}
		once := func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "Self" || seen[op] {
				return nil
			}
			seen[op] = true
			return errLost
		}
		if back {
			h.faults.Set(nil, once)
		} else {
			h.faults.Set(once, nil)
		}
		h.mustCreate("data")
		s.write(h.mustMount("data"), "f", "x")
		h.mustUnmount("data")
		h.detached()
		s.mustRead(h.mustMount("data"), "f", "x")
		h.mustUnmount("data")
		h.mustRemove("data")
		s.noneLeft(h)
		for _, op := range []string{"List", "Create", "Attach", "Detach", "SetTags", "Delete"} {
			if !seen[op] {
				s.Errorf("%s was never called", op)
			}
		}
		h.close()
	}
}

// crashes: the daemon ends at each call to the cloud, before it has its effect and after. The next
// one finishes, with one disk that was formatted once.
func crashes(s *stage) {
	for _, after := range []bool{false, true} {
		if n := s.atEach(1, func(at int) bool { return s.crashAt(at, after) }); n < 8 {
			s.Errorf("only %d calls", n)
		}
	}
}

// crashAt plays the life of a volume in which the daemon ends at one call. It tells whether there
// were so many.
func (s *stage) crashAt(at int, after bool) bool {
	h := s.host()
	name := fmt.Sprintf("data-%d-%v", at, after)
	died := make(chan struct{})
	var mu sync.Mutex
	n := 0
	faults := h.faults
	count := func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == at {
			faults.die()
			close(died)
		}
		return nil
	}
	if after {
		faults.Set(nil, count)
	} else {
		faults.Set(count, nil)
	}
	var crashed atomic.Bool // which a step that is still going on looks at, too
	step := func(what string, do func() error) {
		s.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		var err error
		if crashed.Load() {
			err = <-done
		} else {
			select {
			case err = <-done:
			case <-died:
				crashed.Store(true)
				h.again()
				<-done
				err = do()
			}
		}
		if err != nil {
			s.Fatalf("crash %d, after=%v: %s: %v", at, after, what, err)
		}
	}
	text := fmt.Sprintf("%d %v", at, after)
	step("create", func() error { return h.create(name) })
	step("mount", func() error { _, err := h.mount(name); return err })
	s.write(h.target(name), "f", text)
	step("unmount", func() error { return h.unmount(name) })
	step("detach", func() error {
		for end := time.Now().Add(s.Slow); len(h.attached()) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				return errors.New("the disk is still attached")
			}
			if faults.isDead() && !crashed.Load() {
				return nil
			}
		}
		return nil
	})
	step("mount again", func() error { _, err := h.mount(name); return err })
	s.mustRead(h.target(name), "f", text)
	step("unmount again", func() error { return h.unmount(name) })
	step("remove", func() error {
		err := h.live().Remove(s.Context(), name)
		if crashed.Load() && errors.Is(err, errdefs.ErrNotFound) {
			err = nil // it was done already
		}
		return err
	})
	s.noneLeft(h, name)
	h.close()
	return crashed.Load()
}

func (h *host) attached() []string {
	switch {
	case h.Attached != nil:
		return h.Attached()
	case h.Machine == nil:
		return nil
	}
	return h.Machine.Names()
}

// hangingCloud: while no call to the cloud comes back, what is remembered is told at once, after a
// restart too.
func hangingCloud(s *stage) {
	h := s.host()
	h.mustCreate("data")
	s.write(h.mustMount("data"), "f", "x")
	hang := make(chan struct{})
	defer close(hang)
	h.faults.Set(stalled(hang)(h.faults), nil)
	look := func() {
		s.Helper()
		s.quick("a look while the cloud hangs", func(int) {
			h.inspect("data")
			if n := len(s.names(h)); n != 1 {
				s.Fatalf("%d volumes", n)
			}
		})
	}
	look()
	ctx, cancel := context.WithTimeout(s.Context(), 4*time.Second)
	defer cancel()
	err := h.driver.Create(ctx, "other", map[string]string{})
	s.wantErr(err, errdefs.ErrUnavailable, "create", "going on")
	s.mustRead(h.target("data"), "f", "x")
	look()
	h.mustUnmount("data")
}

// calls: what is asked of the cloud for each verb. The numbers are those of the core; a provider
// whose List takes pages has more requests.
func calls(s *stage) {
	s.poll = 0
	h := s.host()
	h.settle()
	for _, tt := range []struct {
		what string
		do   func() error
		want map[string]int
	}{
		{"create", func() error { return h.create("data") }, map[string]int{"List": 2, "Create": 1}},
		{"create again", func() error { return h.create("data") }, map[string]int{"List": 1}},
		{"first mount", func() error { _, err := h.mount("data"); return err }, map[string]int{"List": 1, "Attach": 1, "SetTags": 2}},
		{"unmount", func() error { return h.unmount("data") }, map[string]int{"Detach": 1}},
		{"mount", func() error { _, err := h.mount("data"); return err }, map[string]int{"List": 1, "Attach": 1}},
		{"unmount again", func() error { return h.unmount("data") }, map[string]int{"Detach": 1}},
		{"inspect", func() error { _, err := h.driver.(volume.Inspector).Inspect(s.Context(), "data"); return err }, map[string]int{}},
		{"remove", func() error { return h.driver.Remove(s.Context(), "data") }, map[string]int{"Delete": 1, "Snapshots": 1}},
	} {
		h.faults.Ops()
		if err := tt.do(); err != nil {
			s.Fatalf("%s: %v", tt.what, err)
		}
		if tt.want["Detach"] > 0 {
			h.detached()
			h.settle()
		}
		got := map[string]int{}
		for _, op := range h.faults.Ops() {
			got[op]++
		}
		s.Logf("%-14s %v", tt.what, got)
		for op, n := range got {
			// What takes a while is asked for more often; and then there is a slow machine.
			if n > tt.want[op] && op != "List" || op == "List" && n > tt.want[op]+int(s.Slow/(5*time.Second)) {
				s.Errorf("%s: %s was asked %d times, want at most %d", tt.what, op, n, tt.want[op])
			}
		}
	}
}

// idle: a host that does nothing asks for a list every now and then, and for nothing else.
func idle(s *stage) {
	s.poll = 0
	h := s.host(func(c *block.Config) { c.Refresh = time.Second })
	h.mustCreate("data")
	h.mustMount("data")
	h.again()
	h.faults.Ops()
	began := time.Now()
	time.Sleep(3 * time.Second)
	ops, span := h.faults.Ops(), time.Since(began)
	for _, op := range ops {
		if op != "List" && op != "Self" {
			s.Errorf("an idle host asked for %s", op)
		}
	}
	if most := int(span/(900*time.Millisecond)) + 1; len(ops) > most {
		s.Errorf("%d calls in %s, want at most %d: %q", len(ops), span, most, ops)
	}
	h.mustUnmount("data")
}

// settle waits until no job runs.
func (h *host) settle() {
	h.s.Helper()
	h.s.eventually("no job runs", func() bool {
		for _, j := range h.driver.(volume.Worker).Jobs() {
			if !j.Ended {
				return false
			}
		}
		return true
	})
}

var _ block.Provider = (*faulty)(nil)

// noneLeft wants the disks to be gone, or on their way: lists of a cloud may be behind.
func (s *stage) noneLeft(h *host, names ...string) {
	s.Helper()
	var left []block.Disk
	for end := time.Now().Add(s.Slow); ; time.Sleep(20 * time.Millisecond) {
		left = slices.DeleteFunc(s.disks(h, names...), func(d block.Disk) bool { return d.State == block.Deleting })
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			s.Errorf("left: %v", left)
			return
		}
	}
}
