package volume

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// stage is a Handler that can be restarted, with a switch for what containers hold.
type stage struct {
	*Handler
	t           *testing.T
	driver      *fake
	options     Options
	held, known bool
	asked       int
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, driver: newFake(t.TempDir(), "a", "b"), known: true}
	s.options = Options{
		Ledger: filepath.Join(t.TempDir(), "ledger"), MountGrace: time.Minute,
		Held: func(context.Context, string) (bool, bool) { s.asked++; return s.held, s.known },
	}
	s.Handler = newTestHandler(t, s.driver, s.options)
	return s
}

func (s *stage) restart() {
	s.t.Helper()
	if err := s.Close(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.Handler = newTestHandler(s.t, s.driver, s.options)
}

func TestReconcile(t *testing.T) {
	tests := []struct {
		name string
		do   func(s *stage)
		want map[string]int // of volume "a", by mount ID
	}{
		{"nothing stale", func(s *stage) { s.Reconcile(s.t.Context()) }, map[string]int{id(1): 2, id(2): 1}},
		{"in grace", func(s *stage) {
			s.Activated(s.t.Context())
			s.Reconcile(s.t.Context())
		}, map[string]int{id(1): 2, id(2): 1}},
		{"engine died", func(s *stage) {
			s.Activated(s.t.Context())
			time.Sleep(2 * time.Minute)
			s.Reconcile(s.t.Context())
		}, map[string]int{}},
		{"plugin restarted", func(s *stage) {
			s.restart()
			time.Sleep(2 * time.Minute)
			s.Reconcile(s.t.Context())
		}, map[string]int{}},
		{"held", func(s *stage) {
			s.held = true
			s.restart()
			time.Sleep(time.Hour)
			s.Reconcile(s.t.Context())
		}, map[string]int{id(1): 2, id(2): 1}},
		{"cannot be known", func(s *stage) {
			s.known = false
			s.restart()
			time.Sleep(time.Hour)
			s.Reconcile(s.t.Context())
		}, map[string]int{id(1): 2, id(2): 1}},
		{"mounted again after the engine died", func(s *stage) {
			s.Activated(s.t.Context())
			mustMount(s.t, s.Handler, "a", id(1))
		}, map[string]int{id(1): 1, id(2): 1}},
		{"mounted again beside a container that lived on", func(s *stage) {
			s.held = true
			s.Activated(s.t.Context())
			mustMount(s.t, s.Handler, "a", id(1))
		}, map[string]int{id(1): 3, id(2): 1}},
		{"some stale, some new", func(s *stage) {
			s.Activated(s.t.Context())
			time.Sleep(2 * time.Minute)
			mustMount(s.t, s.Handler, "a", id(3))
			s.Reconcile(s.t.Context())
		}, map[string]int{id(3): 1}},
		{"podman counts for itself", func(s *stage) {
			mustMount(s.t, s.Handler, "a", podmanID)
			mustMount(s.t, s.Handler, "a", "by hand")
			s.restart()
			time.Sleep(2 * time.Minute)
			s.Reconcile(s.t.Context())
		}, map[string]int{podmanID: 1, "by hand": 1}},
		{"expired in the midst of a mount", func(s *stage) {
			rec := s.mounts.get("a")
			s.Activated(s.t.Context())
			if err := s.mounts.set(rec.with("a", rec.Mountpoint, id(3), 1, time.Now())); err != nil {
				s.t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			s.Reconcile(s.t.Context())
		}, map[string]int{id(3): 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				for _, n := range []int{1, 1, 2} {
					mustMount(t, s.Handler, "a", id(n))
				}
				tt.do(s)
				got := map[string]int{}
				for _, m := range s.mounts.get("a").list() {
					got[m.ID] = m.Count
				}
				if !maps.Equal(got, tt.want) {
					t.Errorf("mounts %v, want %v", got, tt.want)
				}
				if n := len(s.driver.calls("unmount")); (n > 0) != (len(tt.want) == 0) {
					t.Errorf("driver unmounted %d times", n)
				}
				if s.asked > 3 {
					t.Errorf("looked %d times into every process's mounts", s.asked)
				}
			})
		})
	}
}

func TestRemoveForgetsStaleMounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		mustMount(t, s.Handler, "a", id(1))
		s.Activated(t.Context())
		// As if by Podman, while a container of dockerd is about to have what it mounted.
		err := s.Remove(t.Context(), "a")
		mustBe(t, "Remove of what was just mounted", err, errdefs.ErrInUse)
		if got := s.driver.calls("remove"); len(got) != 0 || !s.driver.has("a") {
			t.Errorf("driver: %q", got)
		}
		if hints := errdefs.Hints(err); len(hints) == 0 {
			t.Error("nobody is told what to do")
		}
		time.Sleep(10 * time.Second)
		if err := s.Remove(t.Context(), "a"); err != nil {
			t.Errorf("Remove of what a dead engine had mounted: %v", err)
		}
		if got := s.driver.calls(""); !slices.Equal(got[len(got)-2:], []string{"unmount a", "remove a"}) {
			t.Errorf("driver: %q", got)
		}
	})
}

func TestReconcileTellsWhatItChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		mustMount(t, s.Handler, "a", id(1))
		if got := s.Reconcile(t.Context()); len(got) != 0 {
			t.Errorf("changed %q", got)
		}
		s.Activated(t.Context())
		time.Sleep(time.Hour)
		if got := s.Reconcile(t.Context()); len(got) == 0 {
			t.Error("a mount was forgotten, and nobody told")
		}
	})
}

// Who is told that a volume is in use, is told what to do about it.
func TestInUseHints(t *testing.T) {
	s := newStage(t)
	s.known = false
	want := func(texts ...string) {
		t.Helper()
		hints := errdefs.Hints(s.Remove(t.Context(), "a"))
		if len(hints) != len(texts) {
			t.Fatalf("hints %q, want %d", hints, len(texts))
		}
		for i, text := range texts {
			if !strings.Contains(hints[i], text) {
				t.Errorf("hint %q does not say %q", hints[i], text)
			}
		}
	}
	mustMount(t, s.Handler, "a", id(1))
	want("stop the containers")
	s.Activated(t.Context())
	want("stop the containers", "what a restart left")
	mustMount(t, s.Handler, "a", podmanID)
	want("stop the containers", podmanID)
}
