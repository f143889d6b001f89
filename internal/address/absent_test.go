package address

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestNetworkUnknownForAWhile: a host has given addresses of a network, and lost the record of that for a while, as after a power cut
// or while the network is given another name. Who was given them keeps them, and what it left goes back to where it came from.
func TestNetworkUnknownForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3)
		maker, giver, user := l.hosts[0], l.hosts[1], l.hosts[2]
		s := maker.network("blue")
		l.gossip()
		own, err := giver.any(s)
		must(t, err)
		l.gossip()
		l.cutOff[maker.store.self] = 1 // so that it is the giver that is asked
		at, err := user.any(s)
		must(t, err)
		l.gossip()
		must(t, giver.Leave(t.Context(), s.ID, s.Prefixes[0]))

		giver.kill()
		delete(giver.store.records, record.Key{Writer: maker.store.self, Kind: record.KindNetwork, Name: "blue"})
		giver.start()
		must(t, giver.Step(t.Context()))
		time.Sleep(time.Minute)
		must(t, giver.Step(t.Context()))
		clear(l.cutOff)
		l.settle()
		for i, h := range l.hosts {
			if !slices.ContainsFunc(h.Owned(s.ID), func(o Owned) bool { return o.Owner == user.store.self && o.Prefix.Contains(at) }) {
				t.Errorf("host %d: %s is given to a container, and its host does not own it: %v", i, at, h.Owned(s.ID))
			}
		}
		time.Sleep(2 * Rest)
		l.settle()
		for _, o := range maker.Owned(s.ID) {
			if o.Owner == giver.store.self {
				t.Errorf("%s is that of a host still that has left the network, and had %s", o.Prefix, own)
			}
		}
		must(t, user.Release(t.Context(), s.ID, at))
	})
}
