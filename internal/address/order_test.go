package address

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestLedgerKeepsTheOrder: an address that one gives back and another takes in the same moment is the other's after the host was killed, too.
func TestLedgerKeepsTheOrder(t *testing.T) {
	l := newLab(t, 1)
	h := l.hosts[0]
	s := h.network("blue")
	var all []netip.Addr
	for at := s.Prefixes[0].Addr().Next(); len(all) < 1000; at = at.Next() {
		if !apart(s.block(at), at) {
			all = append(all, at)
		}
	}
	take := func(at netip.Addr) error {
		return second(h.Allocate(t.Context(), Want{Space: s.ID, Subnet: s.Prefixes[0], Address: at, Key: "c"}))
	}
	var running sync.WaitGroup
	for _, at := range all {
		running.Go(func() {
			if err := take(at); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	for _, at := range all {
		running.Go(func() {
			if err := h.Release(t.Context(), s.ID, at); err != nil {
				t.Error(err)
			}
		})
		running.Go(func() {
			for take(at) != nil && t.Context().Err() == nil { // until it is given back
				time.Sleep(time.Microsecond)
			}
		})
	}
	running.Wait()
	h.kill()
	h.start()
	lost := 0
	for _, at := range all {
		if _, out := h.used[spot{s.ID, at}]; !out {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d addresses that containers have are free", lost, len(all))
	}
}

// TestNothingToWrite: who has nothing to write waits for nobody.
func TestNothingToWrite(t *testing.T) {
	l := newLab(t, 1)
	h := l.hosts[0]
	h.ledger.mu.Lock()
	h.ledger.writing = true // another one is at it
	h.ledger.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- h.ledger.append(nil) }()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a write that never comes")
	}
}
