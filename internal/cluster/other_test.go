package cluster

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestConnectFromEither: of two hosts that each founded a cluster one is told to connect to the other. It works from either side: who
// has nothing in its cluster gives it up, of two such the younger; who has something never does.
func TestConnectFromEither(t *testing.T) {
	for name, test := range map[string]struct {
		spare  [2]bool // of the older and the younger
		dialer int
		wins   int // whose cluster stays; -1 is both
	}{
		"the older dials":                 {[2]bool{true, true}, 0, 0},
		"the younger dials":               {[2]bool{true, true}, 1, 0},
		"the older is used and dials":     {[2]bool{false, true}, 0, 0},
		"the older is used, is dialled":   {[2]bool{false, true}, 1, 0},
		"the younger is used and dials":   {[2]bool{true, false}, 1, 1},
		"the younger is used, is dialled": {[2]bool{true, false}, 0, 1},
		"both are used":                   {[2]bool{false, false}, 0, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemnet()
				var hosts []*memhost
				var ids []record.Cluster
				for i := range 2 {
					h := n.add(t, t.TempDir(), fmt.Sprint(i), func(c *Config) { c.Spare = func() bool { return test.spare[i] } })
					if err := h.c.Found(); err != nil {
						t.Fatal(err)
					}
					hosts, ids = append(hosts, h), append(ids, h.c.ID())
					time.Sleep(time.Minute)
				}
				if err := hosts[test.dialer].c.Connect([]string{hosts[1-test.dialer].address}, false); err != nil {
					t.Fatal(err)
				}
				if test.wins < 0 {
					time.Sleep(time.Minute)
					if hosts[0].c.ID() != ids[0] || hosts[1].c.ID() != ids[1] {
						t.Error("a cluster that is used was given up")
					}
					return
				}
				soon(t, "one cluster", 10*time.Second, func() bool { return know(hosts) })
				if id := hosts[0].c.ID(); id != ids[test.wins] {
					t.Errorf("the cluster that stays is %v, want that of host %d, %v", id, test.wins, ids[test.wins])
				}
				for _, h := range hosts {
					if wrong := h.c.Status().Wrong; len(wrong) > 0 {
						t.Errorf("%q", wrong)
					}
				}
			})
		})
	}
}

// TestCannotGiveUp: a cluster that its host does not get rid of stays, and the other host's goes if it can.
func TestCannotGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		var hosts []*memhost
		for i := range 2 {
			h := n.add(t, t.TempDir(), fmt.Sprint(i), func(c *Config) {
				c.Spare = func() bool { return true }
				if i == 1 {
					c.Left = func() error { return errdefs.Errorf(errdefs.ErrInUse, "a container is on it") }
				}
			})
			if err := h.c.Found(); err != nil {
				t.Fatal(err)
			}
			hosts = append(hosts, h)
			time.Sleep(time.Minute)
		}
		younger := hosts[1].c.ID()
		if err := hosts[0].c.Connect([]string{hosts[1].address}, false); err != nil {
			t.Fatal(err)
		}
		soon(t, "one cluster", 10*time.Second, func() bool { return know(hosts) })
		if hosts[0].c.ID() != younger {
			t.Error("the younger gave up what it could not")
		}
	})
}

// TestStrangerTakesNothing: who dials without the password does not make a host give its cluster up, who has it does.
func TestStrangerTakesNothing(t *testing.T) {
	var hosts []*real
	for _, name := range []string{"older", "younger"} {
		h := newReal(t, name, false, func(c *Config) { c.Spare = func() bool { return true } })
		h.password(t, name)
		if err := h.c.Found(); err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
		time.Sleep(1100 * time.Millisecond) // when it was founded is known to the second
	}
	older, younger := hosts[0], hosts[1]
	was := younger.c.ID()
	if err := older.c.Connect([]string{younger.address}, false); err != nil {
		t.Fatal(err)
	}
	soon(t, "it is refused", 20*time.Second, func() bool {
		err := older.c.Targets()[0].Err
		return err != nil && strings.Contains(err.Error(), "password")
	})
	if younger.c.ID() != was {
		t.Fatal("the cluster was given up to who does not know the password")
	}
	younger.password(t, "older")
	soon(t, "they are in one", 40*time.Second, func() bool { return younger.c.ID() == older.c.ID() && len(older.c.Members()) == 2 })
}
