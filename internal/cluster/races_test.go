package cluster

import (
	"testing"
	"testing/synctest"
	"time"
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
