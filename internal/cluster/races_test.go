package cluster

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestGoneBeforeItIsNoted: a link breaks, and the network has told so, before who dialled it gets to know that there was one. It is
// dialled again.
func TestGoneBeforeItIsNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		a := n.add(t, t.TempDir(), "a", nil)
		if err := a.c.Found(); err != nil {
			t.Fatal(err)
		}
		b := n.add(t, t.TempDir(), "b", func(c *Config) { c.Member.Control = nil }) // a cannot dial it
		b.c.mu.Lock()
		first := true
		b.dialed = func(p Peer) {
			if first {
				first = false
				b.Disconnect(p.Host)
				time.Sleep(100 * time.Millisecond)
			}
		}
		b.c.mu.Unlock()
		if err := b.c.Connect([]string{a.address}, false); err != nil {
			t.Fatal(err)
		}
		soon(t, "there is a link", 10*time.Second, func() bool { return len(b.Peers()) == 1 })
	})
}

// TestDescribeAtOnce: of what a host says of itself at the same time the last stays, on the disk and for the others as well.
func TestDescribeAtOnce(t *testing.T) {
	n := newMemnet()
	h := n.add(t, t.TempDir(), "h", nil)
	if err := h.c.Found(); err != nil {
		t.Fatal(err)
	}
	for round := range 200 {
		var both sync.WaitGroup
		for i := range 2 {
			both.Go(func() {
				if err := h.c.Describe(record.Member{Nickname: fmt.Sprint(round, i)}); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		r, _ := h.c.Store().Get(record.Key{Writer: h.c.Self(), Kind: record.KindMember})
		var told record.Member
		if err := json.Unmarshal(r.Body, &told); err != nil {
			t.Fatal(err)
		}
		h.c.mu.Lock()
		said := h.c.said
		h.c.mu.Unlock()
		if told.Nickname != said.Nickname {
			t.Fatalf("round %d: the others are told %q, it is %q", round, told.Nickname, said.Nickname)
		}
	}
}

// TestOtherClusterIsGone: of a host that was in another cluster nothing is told any more once it was reset and has joined, or is no
// target.
func TestOtherClusterIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		hosts := n.cluster(t, 2)
		var others []*memhost
		for range 2 {
			others = append(others, n.cluster(t, 1)[0])
		}
		if err := hosts[0].c.Connect([]string{others[0].address, others[1].address}, false); err != nil {
			t.Fatal(err)
		}
		soon(t, "both are told of", 10*time.Second, func() bool { return len(hosts[0].c.Status().Wrong) == 2 })
		if err := hosts[0].c.Forget([]string{others[1].address}); err != nil {
			t.Fatal(err)
		}
		if wrong := hosts[0].c.Status().Wrong; len(wrong) != 1 {
			t.Errorf("one is no target any more: %q", wrong)
		}
		others[0].stop()
		reset := n.add(t, t.TempDir(), "reset", nil)
		n.mu.Lock()
		n.hosts[others[0].address] = reset
		n.mu.Unlock()
		join(t, reset, hosts[1].address)
		soon(t, "nothing is wrong", 2*time.Minute, func() bool { return len(hosts[0].c.Status().Wrong) == 0 })
	})
}
