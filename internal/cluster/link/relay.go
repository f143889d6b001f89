package link

import (
	"context"
	"io"
	"net/netip"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// dialThrough makes a link to a host over a stream that another one passes on.
func (l *Links) dialThrough(ctx context.Context, between *link, h record.Host) (*link, error) {
	s, err := between.open(ctx, append([]byte{toRelay}, h[:]...)...)
	if err != nil {
		return nil, err
	}
	return l.dialed(ctx, s, greeting{dialed: true, address: through(h, between.host)}, h, between.host, true)
}

func through(h, via record.Host) string { return "host " + h.Short() + " via " + via.Short() }

// accept takes a stream that another host opened, or says why not.
func (l *Links) accept(s *Stream, what []byte) Reason {
	switch {
	case what[0] == toHost && len(what) == 1:
		select {
		case l.streams <- s:
			return 0
		default:
			return Busy
		}
	case what[0] == relayed && len(what) == 1:
		if !l.begin() {
			return Leaving
		}
		go func() {
			defer l.running.Done()
			if place := l.enter(s, netip.Addr{}); place != nil {
				l.greetIn(s, place, greeting{address: "a host via " + s.link.host.Short()}, s.link.host)
			}
		}()
		return 0
	case what[0] == toRelay && len(what) == 1+len(record.Host{}):
		if !l.begin() {
			return Leaving
		}
		to := record.Host(what[1:])
		go func() {
			defer l.running.Done()
			if reason := l.pass(s, to); reason != 0 {
				s.link.reset(s.id, reason)
				s.fail(&RefusedError{Reason: reason, Address: "host " + to.Short()})
				_ = s.Close()
			}
		}()
		return 0
	}
	return Broken
}

// pass passes a stream on to a host, over a direct link alone: there is never more than one host between two. What
// travels on it is TLS of the two, of which this host has no key.
func (l *Links) pass(from *Stream, to record.Host) Reason {
	k := l.best(to)
	if k == nil || !k.direct() || k == from.link || to == from.link.host {
		return NoRoute
	}
	if l.relaying.Add(1) > maxRelayed {
		l.relaying.Add(-1)
		return Busy
	}
	defer l.relaying.Add(-1)
	onward, err := k.open(l.life, relayed)
	if err != nil {
		return Busy
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(from, onward)
		_ = from.Close()
	}()
	_, _ = io.Copy(onward, from)
	_ = onward.Close()
	<-back
	return 0
}
