package link

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Peer is a host to which there is a link, and what is known of that.
type Peer struct {
	Host     record.Host
	Cluster  record.Cluster // that it was in when the link was made; zero if in none
	Protocol int            // that the two speak
	Address  netip.AddrPort // the other end of the connection; zero if Via is not
	Observed netip.AddrPort // this end, as the other host sees it
	Via      record.Host    // the host between; zero if there is none
	Dialed   bool           // by this host
	Proved   bool           // by the password; else it was known
	Since    time.Time
	Took     time.Duration // the handshake
	RTT      time.Duration // mean; 0 if not measured yet

	SentBytes, ReceivedBytes   uint64
	SentFrames, ReceivedFrames uint64
	DroppedOut, DroppedIn      uint64 // messages for which there was no room

	link *link
}

// Same reports whether two values are about the same link.
func (p Peer) Same(o Peer) bool { return p.link == o.link }

func (k *link) peer() Peer {
	p := Peer{
		Host: k.host, Cluster: k.g.peer.Cluster, Protocol: int(min(Protocol, k.g.peer.max)),
		Observed: k.g.peer.observed, Via: k.via, Dialed: k.g.dialed, Proved: k.g.proved,
		Since: k.since, Took: k.g.took, RTT: time.Duration(k.rtt.Load()), link: k,
		SentBytes: k.counters.sentBytes.Load(), ReceivedBytes: k.counters.receivedBytes.Load(),
		SentFrames: k.counters.sentFrames.Load(), ReceivedFrames: k.counters.receivedFrames.Load(),
		DroppedOut: k.counters.droppedOut.Load(), DroppedIn: k.counters.droppedIn.Load(),
	}
	if k.direct() {
		p.Address = k.g.remote
	}
	return p
}

// Peers are the hosts to which there is a link, in the order of hosts.
func (l *Links) Peers() []Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	peers := make([]Peer, 0, len(l.hosts))
	for h := range l.hosts {
		if k := l.bestLocked(h); k != nil {
			peers = append(peers, k.peer())
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return a.Host.Compare(b.Host) })
	return peers
}

// Peer returns what there is to one host.
func (l *Links) Peer(h record.Host) (Peer, bool) {
	k := l.best(h)
	if k == nil {
		return Peer{}, false
	}
	return k.peer(), true
}

// Event says that there is a link to a host that was not there before, perhaps in the place of one that was, or that there is
// none any more.
type Event struct {
	Peer
	Up  bool
	Err error // why it is down
}

// Events are those from now on, beginning with the links that there are, until ctx or the links end. Who is slow misses
// only what has been undone since.
func (l *Links) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		changed := make(chan struct{}, 1)
		changed <- struct{}{}
		l.mu.Lock()
		l.watchers[changed] = struct{}{}
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			delete(l.watchers, changed)
			l.mu.Unlock()
		}()
		seen := map[record.Host]Peer{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-l.life.Done():
				if !l.tell(seen, yield) || l.quiet() {
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
					return
				}
			}
			if !l.tell(seen, yield) {
				return
			}
		}
	}
}

// tell yields what differs from what was seen.
func (l *Links) tell(seen map[record.Host]Peer, yield func(Event) bool) bool {
	now := map[record.Host]Peer{}
	for _, p := range l.Peers() {
		now[p.Host] = p
	}
	for h, p := range seen {
		if n, ok := now[h]; ok && n.Same(p) {
			continue
		}
		// Another link to the same run is no end; but the end will be that of the other one.
		if n, ok := now[h]; ok && n.link.g.peer.instance == p.link.g.peer.instance && n.Via == p.Via {
			seen[h] = n
			if !yield(Event{Peer: n, Up: true}) {
				return false
			}
			continue
		}
		delete(seen, h)
		if !yield(Event{Peer: p, Err: l.why(p)}) {
			return false
		}
	}
	for h, p := range now {
		if _, ok := seen[h]; ok {
			continue
		}
		seen[h] = p
		if !yield(Event{Peer: p, Up: true}) {
			return false
		}
	}
	return true
}

func (l *Links) why(p Peer) error {
	select {
	case <-p.link.done:
		return p.link.err
	default:
		return &RefusedError{Reason: Duplicate, Address: p.link.g.address, Host: p.Host}
	}
}

func (l *Links) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count == 0
}

// changed wakes those who watch. The caller has the lock.
func (l *Links) changed() {
	for c := range l.watchers {
		signal(c)
	}
}

// Trouble is a link that did not come about, with a host that said what was wrong or that this one refused.
type Trouble struct {
	Time    time.Time
	Address string
	Host    record.Host // zero if not known
	Reason  Reason
	Err     error
	Times   int // in a row
}

const maxTroubles = 16

// trouble remembers what a person ought to know.
func (l *Links) trouble(err error) {
	r, ok := errors.AsType[*RefusedError](err)
	if !ok || l.life.Err() != nil {
		return
	}
	switch r.Reason {
	case Cut, Silent, Duplicate, Leaving, Idle, Itself:
		l.cfg.Log.Debug("no link", "error", err)
		return
	}
	l.cfg.Log.Warn("no link", "error", err)
	address := r.Address
	if a, err := netip.ParseAddrPort(address); err == nil && r.Host.IsZero() {
		address = a.Addr().String() // the port is another one each time
	}
	t := Trouble{Time: time.Now(), Address: address, Host: r.Host, Reason: r.Reason, Err: err, Times: 1}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.troubles = slices.DeleteFunc(l.troubles, func(o Trouble) bool {
		if o.Reason != t.Reason || o.Host != t.Host || t.Host.IsZero() && o.Address != t.Address {
			return false
		}
		t.Times += o.Times
		return true
	})
	l.troubles = append(l.troubles, t)
	l.troubles = l.troubles[max(0, len(l.troubles)-maxTroubles):]
}

// Stats are of all links together.
type Stats struct {
	Accepted    uint64 // connections
	Crowded     uint64 // of them, closed in the handshake because there were too many
	Dropped     uint64 // messages that nobody took
	WrongProofs uint64 // of the password
	Relaying    int    // streams that this host passes on
	Troubles    []Trouble
}

// Stats returns them.
func (l *Links) Stats() Stats {
	s := Stats{
		Accepted: l.counters.accepted.Load(), Crowded: l.counters.crowded.Load(), Dropped: l.counters.dropped.Load(),
		WrongProofs: l.limiter.Failed(), Relaying: int(l.relaying.Load()),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Troubles = slices.Clone(l.troubles)
	return s
}
