package link

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// Bounds of what is remembered of hosts without a link.
const (
	maxPast  = 8
	maxKnown = 4096
)

// known is what there is to one host: its links, the best first, of the run of the program there that is the latest.
type known struct {
	instance instance
	past     []instance // that another one has replaced
	links    []*link
}

// better orders links to one run of one host. Both hosts come to the same order, so both prefer the same link: a direct one, then
// one that the lower host dialled, then the one that was dialled last.
func better(a, b *link) int {
	switch {
	case a.direct() != b.direct():
		return first(a.direct())
	case a.g.dialed != b.g.dialed:
		return first(bytes.Compare(a.dialer(), b.dialer()) < 0)
	}
	return first(a.dial() > b.dial())
}

func first(yes bool) int {
	if yes {
		return -1
	}
	return 1
}

func (k *link) dialer() []byte {
	if k.g.dialed {
		return k.l.self[:]
	}
	return k.host[:]
}

func (k *link) dial() uint64 {
	if k.g.dialed {
		return k.g.own.dial
	}
	return k.g.peer.dial
}

// add makes a link known, or says why it cannot be.
func (l *Links) add(k *link) error {
	l.mu.Lock()
	var others []*link
	reason := l.addLocked(k, &others)
	if reason == 0 {
		l.changed()
	}
	l.mu.Unlock()
	if reason != 0 {
		return l.refuse(k.g, reason)
	}
	for _, o := range others {
		if k.overtakes(o) {
			o.leave(Duplicate)
		} else {
			o.leave(Replaced)
		}
	}
	l.settle(k)
	return nil
}

func (l *Links) addLocked(k *link, others *[]*link) Reason {
	if l.closed {
		return Leaving
	}
	if l.count >= maxLinks {
		return Busy
	}
	h := l.hosts[k.host]
	if h == nil {
		l.makeRoom()
		h = &known{instance: k.g.peer.instance}
		l.hosts[k.host] = h
	}
	if h.instance != k.g.peer.instance {
		// A run that was replaced has ended, unless there are two hosts with one key.
		if slices.Contains(h.past, k.g.peer.instance) && len(h.links) > 0 {
			return Cloned
		}
		h.past = append(slices.DeleteFunc(h.past, func(i instance) bool { return i == k.g.peer.instance }), h.instance)
		h.past = h.past[max(0, len(h.past)-maxPast):]
		h.instance = k.g.peer.instance
		*others = slices.Clone(h.links)
	}
	for _, o := range h.links {
		if k.overtakes(o) {
			*others = append(*others, o)
		}
	}
	// Links of a run before stay behind until they are closed.
	at, _ := slices.BinarySearchFunc(h.links, k, func(o, k *link) int {
		if o.g.peer.instance != k.g.peer.instance {
			return 1
		}
		return better(o, k)
	})
	h.links = slices.Insert(h.links, at, k)
	l.count++
	return 0
}

// overtakes tells whether a link is there although there was one already for longer than two that cross may differ: who dialled it
// did so because it has the other one no more, such as a host whose address is another one now.
func (k *link) overtakes(o *link) bool {
	return !k.g.dialed && k.direct() && o.direct() && o.g.peer.instance == k.g.peer.instance && k.since.Sub(o.since) > handshakeLimit
}

// settle closes what a better link makes superfluous, once the better one has shown to live: that also says that the other side has it.
func (l *Links) settle(k *link) {
	l.mu.Lock()
	var links []*link
	if h := l.hosts[k.host]; h != nil {
		links = slices.Clone(h.links)
	}
	l.mu.Unlock()
	for i, o := range links {
		if i > 0 && (links[0] == k || o == k) {
			l.running.Go(func() { l.outlive(o) })
		}
	}
}

// outlive closes a link when there is a better one that lives.
func (l *Links) outlive(o *link) {
	began := time.Now()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-o.done:
			return
		case <-tick.C:
		}
		k := l.best(o.host)
		if k == o {
			return
		}
		// A sign of life that is older than the other one may be the last.
		if k != nil && k.since.Add(time.Duration(k.heard.Load())).After(began.Add(pingEvery/2)) || time.Since(began) > duplicateLives {
			o.leave(Duplicate)
			return
		}
	}
}

// remove forgets a link that is closed.
func (l *Links) remove(k *link) {
	l.mu.Lock()
	h := l.hosts[k.host]
	at := -1
	if h != nil {
		at = slices.Index(h.links, k)
	}
	if at >= 0 {
		h.links = slices.Delete(h.links, at, at+1)
		l.count--
		l.changed()
		if len(h.links) == 0 && len(h.past) == 0 {
			delete(l.hosts, k.host)
		}
	}
	l.mu.Unlock()
	if at >= 0 {
		l.cfg.Log.Info("link closed", "host", k.host.Short(), "address", k.g.address, "reason", reasonOf(k.err).String())
	}
}

// makeRoom forgets a host to which there is no link.
func (l *Links) makeRoom() {
	if len(l.hosts) < maxKnown {
		return
	}
	for host, h := range l.hosts {
		if len(h.links) == 0 {
			delete(l.hosts, host)
			return
		}
	}
}

// best returns the link to use for a host, nil if there is none.
func (l *Links) best(h record.Host) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bestLocked(h)
}

func (l *Links) bestLocked(h record.Host) *link {
	if k := l.hosts[h]; k != nil && len(k.links) > 0 {
		return k.links[0]
	}
	return nil
}

// fresh reports whether there is a direct link to a host that lives.
func (l *Links) fresh(h record.Host) bool {
	k := l.best(h)
	return k != nil && k.direct() && time.Since(k.since)-time.Duration(k.heard.Load()) < 2*pingEvery
}

func (l *Links) all() (links []*link) {
	for _, h := range l.hosts {
		links = append(links, h.links...)
	}
	return links
}

// Recheck closes the links to hosts that have been removed.
func (l *Links) Recheck() {
	l.mu.Lock()
	links := l.all()
	l.mu.Unlock()
	for _, k := range links {
		if l.cfg.Standing(k.host) == Removed {
			k.leave(RemovedThere)
		}
	}
}

// Disconnect closes the links to a host.
func (l *Links) Disconnect(h record.Host) {
	l.mu.Lock()
	var links []*link
	if k := l.hosts[h]; k != nil {
		links = slices.Clone(k.links)
	}
	l.mu.Unlock()
	for _, k := range links {
		k.leave(Leaving)
	}
}

// Moved closes at once the links whose end here is an address that is none of this host's any more: nothing that comes back
// for them finds it, and to wait until they are silent would take seconds.
func (l *Links) Moved(own []netip.Addr) {
	l.mu.Lock()
	links := l.all()
	l.mu.Unlock()
	for _, k := range links {
		if at := addrPort(k.g.conn.LocalAddr()).Addr(); isGone(at, own) {
			k.fail(k.failure(Cut, errors.New("its address is gone from this host")))
		}
	}
}

// isGone reports whether an address is none of this host's own. One that is link-local has a zone where it is that of a connection.
func isGone(at netip.Addr, own []netip.Addr) bool {
	return at.IsValid() && !at.IsLoopback() && !slices.Contains(own, at.WithZone(""))
}
